"""A stuck step is told from a process that was stopped, and from work that goes on."""

from service.engine.watchdog import Watchdog


def test_time_at_one_step_adds_up_until_the_step_ends():
    watchdog = Watchdog(interval_s=1.0)
    assert [watchdog.look({0: 7.0, 1: None}, now) for now in (10.0, 11.0, 12.0)] == [0.0, 1.0, 2.0]
    assert watchdog.look({0: 12.5, 1: None}, 13.0) == 0.0
    assert watchdog.look({0: None, 1: None}, 14.0) == 0.0


def test_the_worker_that_is_stuck_longest_counts():
    watchdog = Watchdog(interval_s=1.0)
    for now in (0.0, 1.0):
        watchdog.look({0: 0.0, 1: now}, now)
    assert watchdog.look({0: 0.0, 1: 2.0}, 2.0) == 2.0


def test_a_process_that_slept_is_not_stuck():
    watchdog = Watchdog(interval_s=1.0)
    watchdog.look({0: 7.0}, 10.0)
    assert watchdog.look({0: 7.0}, 3610.0) == 2.0
