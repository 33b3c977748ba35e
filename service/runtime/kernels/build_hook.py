"""Makes libdragoman.so when the package is built: six calls of the C compiler.

Without one, or where the kernels are not for the machine, the package is built without the library: everything works,
slower. Kernels for instructions that an older compiler does not know are left out. ``CC`` names another compiler than
cc.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "libdragoman.so"
FLAGS = ["-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
FLAGS += ["-ffp-contract=fast"]  # a product and a sum in one instruction, which this standard asks not to
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]  # nobody asks what went wrong in a single number
AVX2 = ["-march=x86-64-v3"]
AVX512 = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
KINDS = {
    "avx2": AVX2,  # the others can be left out: processor.c
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "amx": [*AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
}


def make_library(compiler: str) -> list[str]:
    """Returns the kinds of kernels that the compiler does not know.

    Raises CalledProcessError: the compiler failed; its messages are on standard error.
    """
    unknown = []
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        objects = []
        for kind, flags in KINDS.items():
            made = f"{folder}/{kind}.o"
            chosen = [*FLAGS, *flags, f"-DKERNELS=kernels_{kind}"]
            command = [compiler, *chosen, "-c", str(FOLDER / "kernels.c"), "-o", made]
            if subprocess.run(command, check=kind == "avx2").returncode == 0:
                objects.append(made)
            else:
                unknown.append(kind)
        made = f"{folder}/{LIBRARY.name}"
        sources = [source for source in sorted(FOLDER.glob("*.c")) if source.name != "kernels.c"]
        subprocess.run([compiler, *FLAGS, "-shared", *sources, *objects, "-o", made, "-lm", "-pthread"], check=True)
        os.replace(made, LIBRARY)
    return unknown


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        LIBRARY.unlink(missing_ok=True)  # of an older source, perhaps
        compiler = os.environ.get("CC", "cc")
        if sys.platform != "linux" or platform.machine() != "x86_64":
            return
        if shutil.which(compiler) is None:
            self.app.display_warning(f"{compiler} is not there: built without {LIBRARY.name}, which makes it slower")
            return
        try:
            unknown = make_library(compiler)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"built without {LIBRARY.name}, which makes it slower: {error}")
            return
        for kind in unknown:
            self.app.display_warning(
                f"{compiler} does not know the instructions of {kind}: processors that have them run slower kernels"
            )
        build_data["artifacts"].append(f"/{LIBRARY.relative_to(self.root)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
