"""The one file that holds the numbers of a precision's graphs.

Knows: names, places and bytes. Does not know: which graph uses what.

Every graph of a precision (encoder, decoder step for each beam width, score) points into the same file, so that the
embedding is stored once and the operating system maps it once.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

ALIGNMENT_BYTES = 4096  # ONNX Runtime maps the file; whole pages need no copy


class WeightsFile:
    """Tensors by name, laid out one after the other as they are first asked for."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.tensors: dict[str, NDArray[np.generic]] = {}
        self.offsets: dict[str, int] = {}
        self.size = 0

    def reference(self, name: str, values: NDArray[np.generic]) -> TensorProto:
        """An ONNX initializer that points to the file; the same name must always come with the same values."""
        if name not in self.tensors:
            self.tensors[name] = np.ascontiguousarray(values)
            self.offsets[name] = -(-self.size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            self.size = self.offsets[name] + values.nbytes
        stored = self.tensors[name]
        if stored.shape != values.shape or stored.dtype != values.dtype:
            raise RuntimeError(f"two tensors are called {name}. This is a bug.")
        tensor = TensorProto(name=name, dims=list(stored.shape), data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(stored.dtype)
        place = {"location": self.file_name, "offset": self.offsets[name], "length": stored.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def write(self, folder: Path) -> None:
        with (folder / self.file_name).open("wb") as file:
            for name, values in self.tensors.items():
                file.write(b"\0" * (self.offsets[name] - file.tell()))
                file.write(values.tobytes())
