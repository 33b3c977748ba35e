"""A folder in Hugging Face's layout: its JSON files and its tensors, read with nothing unpickled.

Knows: files and what a damaged one looks like. Does not know: what is in them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.runtime.folder_kind import hint

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the small file begins that Git keeps in place of a large one that Git LFS has not fetched."""


class ImportRefused(ValueError):
    """The folder cannot be imported as it is; the message names the file or the key, and why."""


class HuggingFaceFolder:
    """Raises ImportRefused where there is no folder at ``path``."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ImportRefused(f"{path} is not a folder")
        self.path = path

    def has(self, name: str) -> bool:
        try:
            return (self.path / name).is_file()
        except OSError:  # such as a name that is too long for any file
            return False

    def names(self, pattern: str) -> list[str]:
        return sorted(path.name for path in self.path.glob(pattern))

    def bytes(self, name: str) -> bytes:
        """Raises ImportRefused: the file is missing or cannot be read."""
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise ImportRefused(f"{self.path / name} is missing{hint(self.path, 'huggingface')}") from error
        except OSError as error:
            raise ImportRefused(f"{self.path / name} cannot be read: {error.strerror}") from error
        refuse_pointer(self.path / name, content)
        return content

    def json(self, name: str) -> dict[str, Any]:
        """Raises ImportRefused: the file is missing or holds no JSON object."""
        try:
            values = json.loads(self.bytes(name))
        except (ValueError, RecursionError) as error:
            if isinstance(error, ImportRefused):
                raise
            raise ImportRefused(f"{self.path / name} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ImportRefused(f"{self.path / name} holds no JSON object")
        return values

    def json_if_there(self, name: str) -> dict[str, Any]:
        return self.json(name) if self.has(name) else {}

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, as they are stored, from one file or from shards.

        Raises:
            ImportRefused: there are none, or a file is missing, truncated, or more than plain tensors.
        """
        for name, load in ((SAFETENSORS, load_file), (PICKLED, load_pickled)):
            if self.has(name):
                return self.load(name, load)
            if self.has(f"{name}.index.json"):
                return self.shards(f"{name}.index.json", load)
        raise ImportRefused(f"{self.path} has neither {SAFETENSORS} nor {PICKLED}")

    def shards(self, index: str, load: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
        places = self.json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ImportRefused(f"{self.path / index} has no weight_map")
        tensors: dict[str, Tensor] = {}
        for name in sorted({str(place) for place in places.values()}):
            if Path(name).name != name:
                raise ImportRefused(f"{self.path / index}: {name!r} leaves the folder")
            tensors |= self.load(name, load)
        if missing := places.keys() - tensors.keys():
            raise ImportRefused(f"{self.path / index} promises {min(missing)}, which no file holds")
        return tensors

    def load(self, name: str, load: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
        if not self.has(name):
            raise ImportRefused(f"{self.path / name} is missing")
        with (self.path / name).open("rb") as file:
            refuse_pointer(self.path / name, file.read(len(LFS_POINTER)))
        try:
            tensors = load(self.path / name)
        except Exception as error:  # safetensors and torch raise a dozen unrelated types for a damaged file
            raise ImportRefused(f"{self.path / name} is damaged, or more than plain tensors: {error}") from error
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise ImportRefused(f"{self.path / name}: {key} is not a tensor")
        return tensors


def refuse_pointer(path: Path, start: bytes) -> None:
    """Raises ImportRefused where ``start``, the first bytes of a file, say that it is not the file itself."""
    if start.startswith(LFS_POINTER):
        raise ImportRefused(f"{path} is only Git LFS's pointer to the file: `git lfs pull` fetches it")


def load_pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a .bin: only tensors are rebuilt, no code in it is run."""
    values = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}")
    return values
