"""Whoever records a step is alone, and comes to it however busy the others are."""

import threading
import time

from service.runtime.device_turns import Turns

PATIENCE_S = 30.0


def test_users_are_together_and_who_records_is_alone() -> None:
    turns, log = Turns(), []
    both, go_on = threading.Barrier(3), threading.Event()

    def use() -> None:
        with turns.together():
            both.wait(PATIENCE_S)
            go_on.wait(PATIENCE_S)
            log.append("used")

    def record() -> None:
        with turns.alone():
            log.append("begin")
            log.append("end")

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    both.wait(PATIENCE_S)  # both are in
    recorders = [threading.Thread(target=record) for _ in range(2)]
    for recorder in recorders:
        recorder.start()
    go_on.set()
    for thread in (*users, *recorders):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert log == ["used", "used", "begin", "end", "begin", "end"]


def test_steps_that_follow_each_other_closely_let_it_come_to_pass() -> None:
    turns, has_ended = Turns(), threading.Event()

    def steps() -> None:
        while not has_ended.is_set():
            with turns.together():
                time.sleep(0.0005)

    busy = [threading.Thread(target=steps) for _ in range(2)]
    for thread in busy:
        thread.start()
    recorder = threading.Thread(target=lambda: turns.alone().__enter__())
    recorder.start()
    recorder.join(PATIENCE_S)
    is_alone = not recorder.is_alive()
    has_ended.set()
    if is_alone:
        assert any(thread.is_alive() for thread in busy), "who wants to use the device waits for the end of recording"
        turns._is_recording = False
        with turns._changed:
            turns._changed.notify_all()
    for thread in busy:
        thread.join(PATIENCE_S)
    assert is_alone


def test_an_error_lets_others_in() -> None:
    turns = Turns()
    for turn in (turns.alone, turns.together):
        try:
            with turn():
                raise ValueError("a device error")
        except ValueError:
            pass
    with turns.alone():
        pass
