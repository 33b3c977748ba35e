"""What a benchmark leaves behind: a table for eyes and a JSON file with everything needed to judge or repeat it.

Knows: the machine, versions, files. Does not know: what was measured.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.runtime import kernels

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path("build/bench/quick")  # small measurements do not replace recorded ones
LOAD_AT_START = os.getloadavg()[0]
# Instructions that decide which kernels run.
NOTABLE_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm"}
# Settings of libraries that decide how they use the processors.
SETTINGS = ("OMP_", "MKL_", "CT2_", "KMP_", "MALLOC_", "GLIBC_TUNABLES", "CUDA_VISIBLE_DEVICES")
PACKAGES = ("dragoman", "onnxruntime-gpu", "onnxruntime", "numpy", "ctranslate2", "transformers", "torch", "grpcio")

Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """CPU, its notable instructions, our kernels for them, cores this process may use, memory; how busy all of it was
    at the start and is now; the GPU where PyTorch is in use and has one."""
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    torch = sys.modules.get("torch")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch and torch.cuda.is_available() else {}
    return gpu | {
        "cpu": facts.get("model name", platform.processor()),
        "family": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": sorted(flags & NOTABLE_FLAGS),
        "kernels": kernels.active(),
        "products": kernels.products(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_at_start": round(LOAD_AT_START, 2),
        "load_average": round(os.getloadavg()[0], 2),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are there and matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the working tree, with "-dirty" where files were changed; empty outside of a clone."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


def command_line(arguments: Sequence[str]) -> str:
    """The command that is running; of absolute paths only the last part, which is what another machine shares."""
    module = Path(arguments[0])
    name = f"benchmarks.{module.stem}" if module.parent.name == "benchmarks" else module.stem
    return f"python -m {shlex.join([name, *(shortened(word) for word in arguments[1:])])}"


def shortened(word: str) -> str:
    flag, equals, value = word.partition("=")
    if equals and value.startswith("/"):
        return f"{flag}={Path(value).name}"
    return Path(word).name if word.startswith("/") else word


def save(path: Path, name: str, rows: Sequence[Row], **facts: Any) -> None:
    """Writes one benchmark's results. ``facts``: seeds, objectives, whatever a reader needs besides the rows."""
    write(path, name, rows, facts)
    partial(path).unlink(missing_ok=True)
    print(f"wrote {path}")


def keep(path: Path, name: str, rows: Sequence[Row]) -> None:
    """Writes the rows that are finished, beside what ``save`` will write: a run that is stopped leaves them there."""
    write(partial(path), name, rows, {"complete": False})


def partial(path: Path) -> Path:
    return path.with_suffix(".partial.json")


def write(path: Path, name: str, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    values = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command_line(sys.argv),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        **facts,
        "rows": list(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def shown(value: object) -> str:
    """A number with three significant digits, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{2 if abs(value) < 10 else 1}f}"


def markdown(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A Markdown table; ``columns`` maps keys of a row to headings. Numbers stand to the right."""
    cells = [[shown(row.get(key, "")) for key in columns] for row in rows]
    numeric = [any(isinstance(row.get(key), int | float) for row in rows) for key in columns]
    heads = list(columns.values())
    widths = [max(len(head), 3, *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    pad: list[Callable[[str, int], str]] = [str.rjust if number else str.ljust for number in numeric]
    lines = [[pad[i](text, widths[i]) for i, text in enumerate(line)] for line in (heads, *cells)]
    rule = ["-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, numeric, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def numbers(text: str) -> list[int]:
    """The value of an option such as ``1,8,64``: counts, none of them 0."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{min(found)} must be >= 1")
    return found


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of an option that takes some of ``known``, divided by commas."""

    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return chosen


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """What the command lines of all benchmarks have in common."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    options.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="the JSON file to write")
    said = f"few and small measurements: does it work? Written to {QUICK_RESULTS}, if --out names nothing else"
    options.add_argument("--quick", action=Quick, nargs=0, default=False, help=said)
    return options


class Quick(argparse.Action):
    """Sets the flag, and another file than that of the recorded results where none was chosen."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.quick = True
        if namespace.out == parser.get_default("out"):
            namespace.out = QUICK_RESULTS / namespace.out.name


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the quarters of the values below and above it; of fewer than three values, the least and the most."""
    if len(values) < 3:  # quartiles of two would lie outside of them
        return statistics.median(values), min(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high
