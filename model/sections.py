"""A TOML table as a frozen dataclass, with every mistake in it named.

Knows: names and types of fields. Does not know: what an option means.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Section = TypeVar("Section")
TYPE_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "nothing"}


class TrainingConfigError(ValueError):
    """An option of a training configuration is unknown, of the wrong type or out of range."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise TrainingConfigError(message)


def read_section(section: type[Section], values: Any, where: str) -> Section:
    """A dataclass from a TOML table called ``where``.

    Raises:
        TrainingConfigError: it is no table, or a key does not exist (the nearest one is named), is missing, of the
            wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise TrainingConfigError(f"[{where}] must be a table, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(section)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(section)
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise TrainingConfigError(f"{where}.{key} is unknown; {hint}")
        check_type(value, hints[key], f"{where}.{key}")
    missing = dataclasses.MISSING
    for name, f in fields.items():
        if name not in values and f.default is missing and f.default_factory is missing:
            raise TrainingConfigError(f"{where}.{name} is missing")
    return section(**values)


def check_type(value: object, hint: Any, name: str) -> None:
    """Checks a TOML value against str, int, float, bool or a union of them; a whole number is a number, too."""
    allowed = set(typing.get_args(hint) or (hint,))
    given: type = type(value)
    if given in allowed or (given is int and float in allowed):
        return
    wanted = " or ".join(TYPE_NAMES[kind] for kind in TYPE_NAMES if kind in allowed and kind is not types.NoneType)
    raise TrainingConfigError(f"{name} must be {wanted}, not {value!r}")
