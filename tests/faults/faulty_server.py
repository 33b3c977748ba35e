"""`dragoman serve` whose graphs fail when they are told to: a program that tests launch, never part of the service.

A word a line on standard input says what happens next; each is echoed on standard output when it holds:

    close        decoder steps wait at a gate (a step that hangs); "at gate" is printed when one arrives there
    close encoder, close score    the same for encoder runs, for runs of the score graph
    step         lets one run through the closed gate
    open         lets all through from now on
    fail N       the N-th run of a decoder's graph from now raises; a run may be of several steps (unchanged_steps.py)
    poison R     row R of the next decoder step gives NaN
    slow MS      each decoder step takes so many milliseconds longer, and no CPU
"""

import sys
import threading
import time

import numpy as np

from service.cli import main
from service.engine.unchanged_steps import library_calls
from service.runtime.score_session import Scored, ScoreSession
from service.runtime.session import BoundShape, Candidates, EncodedSources, EncoderSession

SECRET = "a secret of the runtime"
_write_lock = threading.Lock()


def say(word: str) -> None:
    with _write_lock:
        print(word, flush=True)


class Gate:
    """Open at first. Closed, it lets through as many runs as step() allowed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_closed = False
        self.allowed = 0

    def close(self) -> None:
        with self.changed:
            self.is_closed, self.allowed = True, 0

    def open(self) -> None:
        with self.changed:
            self.is_closed = False
            self.changed.notify_all()

    def step(self) -> None:
        with self.changed:
            self.allowed += 1
            self.changed.notify_all()

    def wait(self) -> None:
        with self.changed:
            if not self.is_closed:
                return
            say("at gate")
            self.changed.wait_for(lambda: not self.is_closed or self.allowed)
            self.allowed = max(self.allowed - 1, 0)


class Faults:
    """What goes wrong next."""

    def __init__(self) -> None:
        self.steps, self.encoder, self.score = Gate(), Gate(), Gate()
        self.fail_in: int | None = None
        self.poisoned: int | None = None
        self.slower_s = 0.0

    def obey(self, line: str) -> None:
        """Does what a line of standard input says."""
        word, _, rest = line.strip().partition(" ")
        if word == "close":
            {"": self.steps, "encoder": self.encoder, "score": self.score}[rest].close()
        elif word == "step":
            self.steps.step()
        elif word == "open":
            self.steps.open()
            self.encoder.open()
            self.score.open()
        elif word == "fail":
            self.fail_in = int(rest)
        elif word == "poison":
            self.poisoned = int(rest)
        elif word == "slow":
            self.slower_s = float(rest) / 1000
        else:
            raise ValueError(f"unknown word {word!r}")

    def install(self) -> None:
        """Puts itself around the sessions of this process."""
        run_step, run_encoder, run_score = BoundShape.run, EncoderSession.run, ScoreSession.run

        def step(shape: BoundShape) -> Candidates:
            self.steps.wait()
            if self.fail_in is not None:
                self.fail_in -= 1
                if self.fail_in <= 0:
                    raise RuntimeError(SECRET)
            time.sleep(self.slower_s)
            row, self.poisoned = self.poisoned, None
            if row is not None and (calls := library_calls()):
                calls.repeat(0)  # one step, whose result is still to be read
            candidates = run_step(shape)
            if row is not None:
                candidates.log_probabilities[row] = np.nan
            return candidates

        def encode(session: EncoderSession, *arguments: object) -> EncodedSources:
            self.encoder.wait()
            return run_encoder(session, *arguments)  # type: ignore[arg-type]

        def score(session: ScoreSession, *arguments: object) -> list[Scored]:
            self.score.wait()
            return run_score(session, *arguments)  # type: ignore[arg-type]

        ScoreSession.run = score  # type: ignore[method-assign, assignment]
        BoundShape.run = step  # type: ignore[method-assign, assignment]
        EncoderSession.run = encode  # type: ignore[method-assign, assignment]


def listen(faults: Faults) -> None:
    for line in sys.stdin:
        faults.obey(line)
        say(line.strip())


if __name__ == "__main__":
    installed = Faults()
    installed.install()
    threading.Thread(target=listen, args=(installed,), daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
