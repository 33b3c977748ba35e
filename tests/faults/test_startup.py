"""What must keep a server from starting: a bundle that is not whole, and a machine that does not give what it needs."""

import asyncio
import hashlib
import json
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2

from service.app import SHIPPED_BUNDLE
from service.runtime.bundle import MANIFEST, SEAL, seal_of
from tests.faults.calls import Caller
from tests.faults.conftest import TEXTS
from tests.faults.server_process import PLAIN, ServerProcess

pytestmark = pytest.mark.integration
FILES = sorted(str(path.relative_to(SHIPPED_BUNDLE)) for path in SHIPPED_BUNDLE.rglob("*") if path.is_file())
VOCABULARY = "vocabulary.spm"
BAD_CONFIGURATION = 78


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def refused(*flags: str, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """Exit code and standard error of a server that does not come up."""
    with ServerProcess(*flags, program=PLAIN, is_awaited=False, prepare=prepare) as server:
        code = server.wait()
    said = "\n".join([*server.noise, *(json.dumps(line) for line in server.lines)])
    assert '"message": "serving"' not in said
    assert "Traceback" not in said
    return code, said


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_BUNDLE, tmp_path / "bundle"))


SMOKE = ((truncate, MANIFEST), (flip, FILES[0]), (remove, VOCABULARY))
CASES = [(damage, file) for damage in (remove, truncate, flip) for file in FILES]


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        pytest.param(*case, marks=[] if case in SMOKE else pytest.mark.faults, id=f"{case[0].__name__} {case[1]}")
        for case in CASES
    ],
)
def test_a_damaged_file_is_named(bundle: Path, damage: Callable[[Path], None], file: str):
    damage(bundle / file)
    code, said = refused("--bundle", str(bundle))
    assert code == BAD_CONFIGURATION
    assert Path(file).name in said


@pytest.mark.parametrize("place", ["max_source_tokens", pytest.param('"ids"', marks=pytest.mark.faults)])
def test_a_manifest_that_still_makes_sense_is_refused(bundle: Path, place: str):
    """One bit of the first digit after ``place``: another limit, another token."""
    content = bytearray((bundle / MANIFEST).read_bytes())
    content[next(at for at in range(content.index(place.encode()), len(content)) if chr(content[at]).isdigit())] ^= 1
    json.loads(content)
    (bundle / MANIFEST).write_bytes(content)
    code, said = refused("--bundle", str(bundle))
    assert code == BAD_CONFIGURATION
    assert f"{MANIFEST} was altered" in said


def set_version(bundle: Path, manifest: dict[str, Any]) -> str:
    manifest["format_version"] = 999
    return "999"


def escape(bundle: Path, manifest: dict[str, Any]) -> str:
    shutil.copy(bundle / VOCABULARY, bundle.parent / "outside.spm")
    text = json.dumps(manifest).replace(f'"{VOCABULARY}"', '"../outside.spm"')
    manifest.clear()
    manifest.update(json.loads(text))
    return "../outside.spm"


def swap(bundle: Path, manifest: dict[str, Any]) -> str:
    """The encoder's and a decoder's file change places, and their checksums with them."""
    text = json.dumps(manifest)
    one, other = (next(file for file in FILES if part in file) for part in ("encoder", "decoder-1.onnx"))
    text = text.replace(one, "\0").replace(other, one).replace("\0", other)
    manifest.clear()
    manifest.update(json.loads(text))
    seal(bundle, manifest)
    return Path(other).name


def shorten_vocabulary(bundle: Path, manifest: dict[str, Any]) -> str:
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((bundle / VOCABULARY).read_bytes())
    del model.pieces[-5:]
    model.trainer_spec.vocab_size = len(model.pieces)
    (bundle / VOCABULARY).write_bytes(model.SerializeToString())
    seal(bundle, manifest)
    return VOCABULARY


def seal(bundle: Path, manifest: dict[str, Any]) -> None:
    """Sizes and checksums of the files as they are now."""
    for name, entry in manifest["files"].items():
        content = (bundle / name).read_bytes()
        entry.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.mark.parametrize(
    "change",
    [escape, *(pytest.param(change, marks=pytest.mark.faults) for change in (set_version, swap, shorten_vocabulary))],
)
def test_a_manifest_that_lies_is_refused(bundle: Path, change: Callable[[Path, dict[str, Any]], str]):
    manifest = json.loads((bundle / MANIFEST).read_text())
    named = change(bundle, manifest)
    text = json.dumps(manifest)
    (bundle / MANIFEST).write_text(text)
    (bundle / SEAL).write_bytes(seal_of(text.encode()))
    code, said = refused("--bundle", str(bundle))
    assert code == BAD_CONFIGURATION
    assert named in said


@pytest.mark.parametrize("flag", ["--listen", pytest.param("--metrics-listen", marks=pytest.mark.faults)])
def test_a_busy_port_is_named(flag: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = refused(flag, address)
    assert code == 1
    assert f"cannot listen on {address}" in said


def no_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_disk_that_takes_nothing_is_not_missed(golden: dict[str, str]):
    """A server writes no file: one that may not write a byte serves as any other."""

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            assert (await caller.translate(TEXTS[0])).texts == (golden[TEXTS[0]],)

    with ServerProcess(program=PLAIN, prepare=no_files) as server:
        asyncio.run(check(server))
        assert server.stop() == 0


@pytest.mark.faults
def test_a_zip_that_cannot_be_unpacked_is_an_error(tmp_path: Path):
    packed = shutil.make_archive(str(tmp_path / "bundle"), "zip", SHIPPED_BUNDLE)
    code, said = refused("--bundle", packed, prepare=no_files)
    assert code in (1, BAD_CONFIGURATION)
    assert "bundle.zip" in said


@pytest.mark.parametrize("limit", [40, pytest.param(12, marks=pytest.mark.faults)])
def test_too_few_file_descriptors_to_start(limit: int):
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    code, said = refused(prepare=few)
    assert code == BAD_CONFIGURATION
    assert f"may open {limit} files" in said


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.faults)])
def test_file_descriptors_run_out_while_it_serves(golden: dict[str, str], rounds: int):
    """More connections than it may open: those it has go on, and when the others leave it takes new ones."""
    limit = 64

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    async def check(server: ServerProcess) -> None:
        host, _, port = server.address.partition(":")
        async with Caller(server.address) as caller:
            assert (await caller.translate(TEXTS[0])).texts == (golden[TEXTS[0]],)
            for _ in range(rounds):
                strangers = [socket.create_connection((host, int(port))) for _ in range(2 * limit)]
                assert (await caller.translate(TEXTS[1])).texts == (golden[TEXTS[1]],)
                for stranger in strangers:
                    stranger.close()
                async with Caller(server.address) as late:
                    assert (await late.translate(TEXTS[2])).texts == (golden[TEXTS[2]],)

    with ServerProcess(program=PLAIN, prepare=few) as server:
        base = server.census()
        asyncio.run(check(server))
        server.wait_for_rest(base)
        assert server.stop() == 0
