"""Makes libdragoman.so when the package is built: four calls of the C compiler.

Without one, or where the kernels are not for the machine, the package is built without the library: everything works,
slower. ``CC`` names another compiler than cc.
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
AVX512 = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
KINDS = {"vnni": [*AVX512, "-mavx512vnni"], "v4": AVX512, "v3": ["-march=x86-64-v3"]}


def make_library(compiler: str) -> None:
    """Raises CalledProcessError: the compiler failed; its messages are on standard error."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        objects = [f"{folder}/{kind}.o" for kind in KINDS]
        for (kind, flags), made in zip(KINDS.items(), objects, strict=True):
            table = f"-DKERNELS=kernels_{kind}"
            subprocess.run([compiler, *FLAGS, *flags, table, "-c", FOLDER / "kernels.c", "-o", made], check=True)
        made = f"{folder}/{LIBRARY.name}"
        sources = [source for source in sorted(FOLDER.glob("*.c")) if source.name != "kernels.c"]
        subprocess.run([compiler, *FLAGS, "-shared", *sources, *objects, "-o", made, "-lm", "-pthread"], check=True)
        os.replace(made, LIBRARY)


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
            make_library(compiler)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"built without {LIBRARY.name}, which makes it slower: {error}")
            return
        build_data["artifacts"].append(f"/{LIBRARY.relative_to(self.root)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
