"""How far a job is: a bar on a terminal, a line now and then elsewhere.

Knows: rates. Does not know: what is counted. How much is left follows from the bytes of the input, so that nobody has
to count its rows first.
"""

import sys
import time
from typing import Any, Final

from tqdm import tqdm

EVERY_S: Final = 10.0


class Progress:
    """Tells standard error.

    Args:
        num_bytes: of the part of the input that this job reads; 0 where nobody knows.
        position: of these, done before this run. rows: rows done before this run.
    """

    def __init__(self, num_bytes: int, position: int, rows: int) -> None:
        self._num_bytes, self._began_at = num_bytes, position
        self._rows, self._tokens = rows, 0
        self._started = self._told = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]" if num_bytes else "{desc} [{elapsed}]"
            self._bar = tqdm(total=num_bytes or None, initial=position, bar_format=form, leave=True)

    def advance(self, position: int, rows: int, tokens: int) -> None:
        """``rows`` rows are done, the input is read up to ``position``, ``tokens`` tokens were made in this run."""
        self._rows, self._tokens = rows, tokens
        if self._bar is not None:
            self._bar.n = position
            self._bar.set_description_str(self._done(), refresh=True)
        elif time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            print(f"dragoman batch: {self._done()}{self._left(position)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def rate(self) -> str:
        """How fast this run was."""
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        return f"{self._tokens / elapsed_s:,.0f} tokens/s"

    def _done(self) -> str:
        return f"{self._rows:,} rows, {self.rate()}"

    def _left(self, position: int) -> str:
        done = position - self._began_at
        if not self._num_bytes or done <= 0:
            return ""
        left_s = (time.monotonic() - self._started) * max(self._num_bytes - position, 0) / done
        return f", {position / self._num_bytes:.0%}, {tqdm.format_interval(left_s)} left"
