"""One signal asks for an end, a second one takes it, and afterwards signals are whose they were."""

import os
import signal

import pytest

from service.commands.stop_signals import SIGNALS, stopped_by_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_told(number: int):
    told = []
    with stopped_by_signals() as stop:
        stop.then(lambda: told.append("soon"))
        assert (stop.signal, told) == (0, [])
        signal.raise_signal(number)
        assert (stop.signal, told) == (number, ["soon"])
        stop.then(lambda: told.append("now"))
        assert told == ["soon", "now"], "it has come before anybody could say what follows"


def test_a_second_signal_ends_the_process_as_it_would_have(monkeypatch: pytest.MonkeyPatch):
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    with stopped_by_signals():
        signal.raise_signal(signal.SIGINT)
        assert ends == []
        signal.raise_signal(signal.SIGTERM)
    assert ends[0] == 128 + signal.SIGTERM


def test_afterwards_signals_reach_whom_they_reached_before():
    found = []
    before = signal.signal(signal.SIGTERM, lambda *_: found.append("the one before"))
    try:
        with stopped_by_signals():
            pass
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == ["the one before"]
