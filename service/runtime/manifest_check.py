"""Whether a manifest's values are what they should be: fields and types as declared, numbers in their ranges.

Knows: the declarations of the manifest's classes. Does not know: files.

A manifest is sealed, so a wrong value is no accident of a copy but of the program that wrote it; what it would break
later is told here, by its name.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from service.errors import BundleError

if TYPE_CHECKING:
    from service.runtime.bundle import Manifest


Kind = TypeVar("Kind")


def read_fields(kind: type[Kind], values: Mapping[str, Any], where: str) -> Kind:
    """A dataclass of what JSON, which has no tuples, holds of it.

    Raises:
        BundleError: there is a field that this version does not know, so that it would serve the bundle wrongly.
    """
    if unknown := sorted(values.keys() - {field.name for field in fields(kind)}):  # type: ignore[arg-type]
        raise BundleError(
            f"{where} has {unknown[0]!r}, which this version of Dragoman does not know: the bundle is of a newer one; "
            "serve it with that, or export it again"
        )
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def check_manifest(manifest: "Manifest") -> None:
    """Raises TypeError or ValueError: a value is not of its type, or out of its range."""
    check_types(manifest)
    shape = manifest.shape
    check_least(asdict(shape), 1)
    if shape.model_width % shape.num_heads:
        raise ValueError(f"model_width ({shape.model_width}) must be a multiple of num_heads ({shape.num_heads})")
    # A source has its end token; what is translated needs a token more, and those that choose its two languages.
    sides = (manifest.source_languages, manifest.target_languages)
    prefix = sum(max((len(language.prefix) for language in side), default=0) for side in sides)
    check_least({"max_source_tokens": manifest.max_source_tokens}, prefix + 2)
    check_least({"max_target_tokens": manifest.max_target_tokens}, 2)
    check_least({f"num_beams of golden {golden.source!r}": golden.num_beams for golden in manifest.golden}, 1)


def check_types(value: Any, where: str = "") -> None:
    """Raises TypeError where a field of a dataclass, or of one inside it, is not of its declared type."""
    hints = get_type_hints(type(value))
    for field in fields(value):
        _check(getattr(value, field.name), hints[field.name], f"{where}{field.name}")


def _check(value: Any, kind: Any, where: str) -> None:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return
    if not isinstance(value, origin) or (origin is int and isinstance(value, bool)):
        raise TypeError(f"{where} ({value!r}) must be {getattr(origin, '__name__', origin)}")
    if is_dataclass(value):
        check_types(value, f"{where}.")
    elif origin is tuple:
        for place, item in enumerate(value):
            _check(item, inner[0], f"{where}[{place}]")
    elif origin is Mapping:
        for key, item in value.items():
            _check(key, inner[0], f"a key of {where}")
            _check(item, inner[1], f"{where}[{key!r}]")


def check_least(values: Mapping[str, int], least: int) -> None:
    """Raises ValueError where one of the numbers is smaller than ``least``."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} ({value}) must be >= {least}")
