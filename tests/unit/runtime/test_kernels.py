"""Which kernels run, and how the library is made: with and without a compiler, a library, a processor for it."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from service.app import SHIPPED_BUNDLE
from service.errors import ConfigurationError
from service.runtime import kernels

HOOK = kernels.LIBRARY.with_name("build_hook.py")


@pytest.fixture(autouse=True)
def _ask_anew() -> Iterator[None]:
    kernels.active.cache_clear()
    kernels.products.cache_clear()
    yield
    kernels.active.cache_clear()
    kernels.products.cache_clear()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("chosen", "products"),
    [("none", "auto"), ("avx2", "own"), ("avx2", "onnxruntime"), ("auto", "own"), ("auto", "auto")],
)
def test_the_shipped_bundle_says_its_golden_translations_with_all_kernels(chosen: str, products: str) -> None:
    command = [sys.executable, "-m", "service.cli", "verify", str(SHIPPED_BUNDLE)]
    environment = os.environ | {kernels.VARIABLE: chosen, kernels.PRODUCTS_VARIABLE: products}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("variable", [kernels.VARIABLE, kernels.PRODUCTS_VARIABLE])
@pytest.mark.parametrize(
    "arguments", [["translate", "--to", "fr", "Hello."], ["serve"], ["verify", str(SHIPPED_BUNDLE)]]
)
def test_kernels_that_nobody_knows_are_an_error(arguments: list[str], variable: str) -> None:
    command = [sys.executable, "-m", "service.cli", *arguments]
    environment = os.environ | {variable: "sse"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert f"{variable} is 'sse'; it may be auto, " in done.stderr
    assert "Traceback" not in done.stderr


def test_products_that_nobody_makes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.PRODUCTS_VARIABLE, "fast")
    with pytest.raises(ConfigurationError, match="DRAGOMAN_PRODUCTS is 'fast'; it may be auto, own, onnxruntime"):
        kernels.library()


def test_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "none")
    assert kernels.library() is None
    assert kernels.products() == kernels.ONNX_RUNTIME
    monkeypatch.setenv(kernels.VARIABLE, "fast")
    kernels.active.cache_clear()
    with pytest.raises(ConfigurationError, match="'fast'"):
        kernels.library()


def test_without_the_library_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "libdragoman.so")
    assert kernels.library() is None


def test_a_library_of_another_system_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "libdragoman.so")
    kernels.LIBRARY.write_bytes(b"MZ")
    assert kernels.library() is None
    assert "cannot be used" in caplog.text


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The build hook with its files in a folder of its own, where hatchling need not be installed."""
    for name in HATCHLING:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[HATCHLING[-1]], "BuildHookInterface", object, raising=False)
    spec = importlib.util.spec_from_file_location("build_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in (*HOOK.parent.glob("*.c"), *HOOK.parent.glob("*.h")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "LIBRARY", tmp_path / "libdragoman.so")
    return module


HATCHLING = ["hatchling", "hatchling.builders", "hatchling.builders.hooks"]
HATCHLING += ["hatchling.builders.hooks.plugin", "hatchling.builders.hooks.plugin.interface"]


def build(hook: ModuleType, folder: Path) -> tuple[dict[str, object], list[str]]:
    """What the hook says of the wheel, and what it warns of."""
    built, warnings = hook.CustomBuildHook(), []
    built.root, built.app = str(folder), SimpleNamespace(display_warning=warnings.append)
    data: dict[str, object] = {"artifacts": []}
    built.initialize("standard", data)
    return data, warnings


@pytest.mark.skipif(kernels.active() == "none", reason="no C compiler, or not x86-64 with AVX2: no library is made")
def test_a_wheel_with_the_library_is_for_its_machine_and_any_python(hook: ModuleType, tmp_path: Path) -> None:
    data, warnings = build(hook, tmp_path)
    assert warnings == []
    assert data["artifacts"] == ["/libdragoman.so"]
    assert data["pure_python"] is False
    assert str(data["tag"]).startswith("py3-none-linux_")
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix not in (".c", ".h")) == [".so"]


@pytest.mark.skipif(kernels.active() == "none", reason="no C compiler, or not x86-64 with AVX2: no library is made")
def test_kernels_that_a_compiler_does_not_know_are_left_out(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older-cc"
    older.write_text(
        f'#!/bin/sh\ncase "$*" in *-mamx*|*-mavx*) exit 1;; esac\nexec {os.environ.get("CC", "cc")} "$@"\n'
    )
    older.chmod(0o755)
    monkeypatch.setenv("CC", str(older))
    data, warnings = build(hook, tmp_path)
    assert data["artifacts"] == ["/libdragoman.so"]
    assert [next(kind for kind in hook.KINDS if f" {kind}:" in warning) for warning in warnings] == [
        "avxvnni", "avx512vnni", "amx",
    ]  # fmt: skip
    environment = os.environ | {kernels.VARIABLE: "auto"}
    asks = (
        f"import ctypes; kind = ctypes.CDLL({str(hook.LIBRARY)!r}).dragoman_kernels; kind.restype = ctypes.c_char_p; "
    )
    command = [sys.executable, "-c", asks + "print(kind().decode())"]
    chosen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert chosen in ("avx2", "avx512")


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_package_is_built_all_the_same(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    if hook.platform.machine() != "x86_64" or hook.sys.platform != "linux":
        pytest.skip("no library is made on this system, and nobody expects one")
    (tmp_path / "libdragoman.so").write_bytes(b"of an older source")
    monkeypatch.setenv("CC", compiler)
    data, warnings = build(hook, tmp_path)
    assert data == {"artifacts": []}
    assert len(warnings) == 1
    assert "slower" in warnings[0]
    assert not (tmp_path / "libdragoman.so").exists()
