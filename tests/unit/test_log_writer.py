"""A log that nobody reads holds up nobody; when it is read again, its lines are whole, in order and counted."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.log_writer import MAX_WAITING_BYTES, PIECE_BYTES, LogWriter

PIPE_BYTES = 1 << 16


class Log:
    """A logger that writes into a pipe."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.writer = LogWriter(self.writing)
        self.logger = logging.getLogger("dragoman.logs")  # which also says what was lost
        self.logger.addHandler(self.writer)
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False  # what other tests have set up is not read here

    def read_until(self, last: str) -> list[str]:
        found = b""
        while not found.endswith(f"{last}\n".encode()):
            found += os.read(self.reading, PIPE_BYTES)
        return found.decode().splitlines()

    def close(self) -> None:
        self.logger.removeHandler(self.writer)
        self.logger.setLevel(logging.NOTSET)
        self.logger.propagate = True
        for descriptor in (self.writing, self.reading):
            with suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def log() -> Iterator[Log]:
    found = Log()
    yield found
    found.close()


def line(number: int) -> str:
    return f"{number:6} {'x' * 100}"


def test_a_line_that_is_read_waits_for_nothing(log: Log):
    log.logger.info("été")
    assert os.read(log.reading, 100) == "été\n".encode()


def test_lines_wait_for_their_reader(log: Log):
    lines = [line(number) for number in range(3 * PIPE_BYTES // 100)]
    for each in lines:
        log.logger.info(each)
    assert log.read_until(lines[-1]) == lines
    log.writer.flush()
    log.logger.info("and now at once")
    assert log.read_until("and now at once") == ["and now at once"]


def test_a_long_line_stays_whole(log: Log):
    lines = ["before", "y" * (3 * PIPE_BYTES + PIECE_BYTES // 2), "after"]
    for each in lines:
        log.logger.info(each)
    assert log.read_until("after") == lines


def test_what_is_too_much_is_lost_and_counted(log: Log):
    count = 2 * (MAX_WAITING_BYTES + PIPE_BYTES) // 100
    records = []
    log.writer.addFilter(lambda record: records.append(record) or True)
    for number in range(count):
        log.logger.info(line(number))
    found = log.read_until("log lines were lost")
    kept = found[:-1]
    assert kept == [line(number) for number in range(len(kept))]
    assert MAX_WAITING_BYTES < sum(map(len, kept)) < MAX_WAITING_BYTES + 2 * PIPE_BYTES
    assert records[-1].facts == {"lines": count - len(kept)}


def test_a_reader_that_left_ends_nothing(log: Log, capsys: pytest.CaptureFixture[str]):
    os.close(log.reading)
    log.logger.info("short")
    log.logger.info("z" * 2 * PIECE_BYTES)
    log.writer.flush()
    assert capsys.readouterr().err == ""


def test_without_another_thread_lines_are_lost_until_they_are_read(log: Log, monkeypatch: pytest.MonkeyPatch):
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for number in range(2 * PIPE_BYTES // 100):
        log.logger.info(line(number))
    os.read(log.reading, PIPE_BYTES)
    log.logger.info("the last")
    assert log.read_until("the last")[-1] == "the last"
