"""How flags are read: whole names only, and a mistyped one is told with the one that was meant.

Knows: argparse. Does not know: any flag.
"""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any


def is_text(argument: str) -> bool:
    """Whether an argument is valid UTF-8, which a file's name need not be: Python makes surrogates of other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


class FlagParser(argparse.ArgumentParser):
    """Of `dragoman` and of each of its commands, which take their class from it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    # argparse declares this method twice over, in a way that cannot be repeated here.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Ends the program with 2 where an argument is unknown, with the usage of the command that does not know it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return found, unknown

    def _meant(self, unknown: Sequence[str]) -> str:
        known = [flag for action in self._actions for flag in action.option_strings]
        flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
        found = [match for flag in flags for match in difflib.get_close_matches(flag, known, n=1, cutoff=0.5)]
        return f"; did you mean {', '.join(found)}?" if found else ""
