"""How far a job is: a bar on a terminal, a line now and then elsewhere.

Knows: rates. Does not know: what is counted.
"""

import sys
import time
from typing import Any, Final

from tqdm import tqdm

EVERY_S: Final = 10.0


class Progress:
    """Tells standard error.

    Args:
        size: of the whole job, in bytes read or in rows; 0 where nobody knows.
        position: of that, done before this run. rows: rows done before this run.
    """

    def __init__(self, size: int, position: int, rows: int) -> None:
        self._size, self._began_at = size, position
        self._rows, self._tokens = rows, 0
        self._started = self._told = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]" if size else "{desc} [{elapsed}]"
            self._bar = tqdm(total=size or None, initial=position, bar_format=form, leave=True)

    def advance(self, position: int, rows: int, tokens: int) -> None:
        """``rows`` rows are done, ``position`` of the job's size, ``tokens`` tokens were made in this run."""
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
        if not self._size or done <= 0:
            return ""
        left_s = (time.monotonic() - self._started) * max(self._size - position, 0) / done
        return f", {position / self._size:.0%}, {tqdm.format_interval(left_s)} left"
