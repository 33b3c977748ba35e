"""Compiles the libraries of a GPU that computes nothing, for processes started with ``LD_LIBRARY_PATH`` set to them.

Knows: a C compiler, the names of CUDA's libraries. Does not know: what is tested with them.
"""

import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort

SOURCE = Path(__file__).with_name("null_gpu.c")
# Library -> its file's name, which is also the name of its symbols' version.
LIBRARIES = {
    "cudart": "libcudart.so.13",
    "cublas": "libcublas.so.13",
    "cublasLt": "libcublasLt.so.13",
    "curand": "libcurand.so.10",
    "cuda": "libcuda.so.1",
}


def why_not() -> str:
    """What is missing for it here, in words; empty: nothing."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "needs onnxruntime-gpu"
    return "" if shutil.which("cc") else "needs a C compiler (cc)"


def build(folder: Path) -> Path:
    for library, name in LIBRARIES.items():
        versions = folder / f"{library}.map"
        # The driver's symbols have no version.
        versions.write_text(f"{'' if library == 'cuda' else name} {{ global: *; }};\n")
        flags = ["-shared", "-fPIC", "-O1", "-w", f"-DLIB_{library}", f"-Wl,-soname,{name}"]
        command = ["cc", *flags, f"-Wl,--version-script={versions}", str(SOURCE), "-o", str(folder / name)]
        subprocess.run(command, check=True)
    return folder
