"""A bundle that is not whole is refused, and the message names the file."""

import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import onnx
import pytest

from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import BundleError
from service.runtime.bundle import MANIFEST, SEAL, Bundle, parse_manifest, seal_of, sha256_of

SETTINGS = EngineSettings(num_workers=1, threads_per_worker=1, max_rows=16)

GOLDEN = {"precision": "cpu-fp32", "source": "a", "num_beams": 1, "ids": [2]}


@pytest.fixture
def bundle(nonsense_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(nonsense_bundle, tmp_path / "copy"))


def listed_files(bundle: Path) -> list[str]:
    return sorted(json.loads((bundle / MANIFEST).read_text())["files"])


def change_manifest(bundle: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    values = json.loads((bundle / MANIFEST).read_text())
    change(values)
    write_manifest(bundle, json.dumps(values))


def write_manifest(bundle: Path, text: str) -> None:
    """With its checksum: what is wrong must then be found by reading it."""
    (bundle / MANIFEST).write_text(text)
    (bundle / SEAL).write_bytes(seal_of(text.encode()))


def list_again(bundle: Path, *names: str) -> None:
    """Makes the manifest agree with altered files: what is wrong must then be found by looking inside."""

    def change(values: dict) -> None:  # type: ignore[type-arg]
        for name in names:
            values["files"][name] = {"size": (bundle / name).stat().st_size, "sha256": sha256_of(bundle / name)}

    change_manifest(bundle, change)


def test_a_whole_bundle_opens_from_a_folder_and_from_a_zip(bundle: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle)
    opened = Bundle.open(Path(archive))
    assert opened.manifest == Bundle.open(bundle).manifest
    assert opened.path(opened.manifest.vocabulary).exists()
    opened.close()
    assert not opened.root.exists()


def test_every_listed_file_missing_truncated_or_with_one_byte_changed_is_named(bundle: Path) -> None:
    for name in listed_files(bundle):
        path, content = bundle / name, (bundle / name).read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged, complaint in ((None, "missing"), (content[:-1], "truncated"), (flipped, "altered")):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(BundleError, match=complaint) as error:
                Bundle.open(bundle)
            assert str(path) in str(error.value)
            path.write_bytes(content)
    Bundle.open(bundle)


@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_a_manifest_with_any_byte_changed_is_refused(bundle: Path, name: str) -> None:
    """Above all those that can still be read: another digit in a limit or a token id."""
    path, content, rng = bundle / name, (bundle / name).read_bytes(), random.Random(name)
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    places = range(len(content)) if name == SEAL else [*rng.sample(digits, 100), *rng.sample(range(len(content)), 300)]
    num_readable = 0
    for place in places:
        flipped = content[place] ^ 1 << rng.randrange(3)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        with pytest.raises(BundleError, match=f"{MANIFEST}.*altered"):
            Bundle.open(bundle)
        with contextlib.suppress(BundleError, UnicodeDecodeError):
            parse_manifest(path.read_text(), "")
            num_readable += 1
    assert name == SEAL or num_readable > 50, "the test damages too much"
    path.write_bytes(content)
    Bundle.open(bundle)


@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_a_manifest_missing_cut_or_lengthened_is_refused(bundle: Path, name: str) -> None:
    path, content = bundle / name, (bundle / name).read_bytes()
    for damaged in (None, b"", content[:-1], content + b"\n"):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(BundleError, match=name):
            Bundle.open(bundle)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle)


def test_the_checksum_of_the_manifest_is_what_sha256sum_says(bundle: Path) -> None:
    told = subprocess.run(["sha256sum", MANIFEST], cwd=bundle, capture_output=True, check=True).stdout
    assert told == (bundle / SEAL).read_bytes()


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..\\outside"])
def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_text("x")
    change_manifest(bundle, lambda values: values["files"].update({name: {"size": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(bundle)


def test_a_link_is_refused(bundle: Path) -> None:
    path = bundle / listed_files(bundle)[0]
    path.rename(bundle.parent / "elsewhere")
    os.symlink(bundle.parent / "elsewhere", path)
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(bundle)


def test_a_zip_that_climbs_out_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(tmp_path / "evil.zip")
    assert not (tmp_path.parent / "evil").exists()


def test_a_link_in_a_zip_becomes_a_plain_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    link = zipfile.ZipInfo("vocabulary.link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret"))
        for path in bundle.rglob("*"):
            archive.write(path, path.relative_to(bundle))
    opened = Bundle.open(tmp_path / "b.zip")
    assert not (opened.root / "vocabulary.link").is_symlink()
    opened.close()


def test_a_damaged_zip_is_refused_whatever_it_breaks(bundle: Path, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.zip", tmp_path / "damaged.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in bundle.rglob("*"):
            if path.stat().st_size < 100_000:
                archive.write(path, path.relative_to(bundle))
    content = whole.read_bytes()
    rng = random.Random(1)
    for _ in range(300):
        bit = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(changed)
        with pytest.raises(BundleError):
            Bundle.open(damaged).close()


def test_a_zip_larger_than_the_disk_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        archive.writestr("manifest.json", "x")
    bomb = (tmp_path / "bomb.zip").read_bytes()
    at = bomb.rindex(b"PK\x01\x02") + 24  # size of the unpacked file, in the archive's directory
    (tmp_path / "bomb.zip").write_bytes(bomb[:at] + b"\xfe\xff\xff\xff" + bomb[at + 4 :])
    free = shutil.disk_usage(tmp_path)._replace(free=2**32 - 3)
    with mock.patch("shutil.disk_usage", return_value=free), pytest.raises(BundleError, match="4294967294 bytes"):
        Bundle.open(tmp_path / "bomb.zip")


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "cpu-int8/link"])
def test_a_graph_cannot_reach_for_weights_outside(bundle: Path, location: str) -> None:
    """ONNX Runtime itself refuses: a graph's external data may neither climb nor be absolute nor go through a link."""
    name = "cpu-int8/encoder.onnx"
    (bundle.parent / "secret").write_bytes((bundle / "cpu-int8" / "weights.bin").read_bytes())
    (bundle / "cpu-int8" / "cpu-int8").mkdir()
    (bundle / "cpu-int8" / "cpu-int8" / "link").symlink_to(bundle.parent / "secret")
    graph = onnx.load(bundle / name, load_external_data=False)
    external = [t for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert external
    for tensor in external:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (bundle / name).write_bytes(graph.SerializeToString())
    list_again(bundle, name)
    with pytest.raises(BundleError, match=r"encoder.onnx cannot be loaded"):
        Translator.load(bundle, SETTINGS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda values: values.update(format_version=2), "format version 2"),
        (lambda values: values.pop("shape"), "damaged"),
        (lambda values: values["files"].pop("vocabulary.spm"), "does not list"),
        (lambda values: values["precisions"]["cpu-int8"].pop("encoder"), "damaged"),
        (lambda values: values["precisions"]["cpu-int8"].update(encoder=["a"]), r"encoder \(\('a',\)\) must be str"),
        (lambda values: values.update(max_target_tokens="256"), "max_target_tokens .'256'. must be int"),
        (lambda values: values.update(max_target_tokens=True), "must be int"),
        (lambda values: values.update(max_target_tokens=0), ">= 2"),
        (lambda values: values.update(max_source_tokens=1), ">= 2"),
        (
            lambda values: values.update(
                max_source_tokens=3,
                source_languages=[{"code": "en", "prefix": [5]}],
                target_languages=[{"code": "fr"}, {"code": "de", "prefix": [6]}],
            ),
            r"max_source_tokens \(3\) must be >= 4",
        ),
        (lambda values: values["shape"].update(num_heads=0), "num_heads .0. must be >= 1"),
        (lambda values: values["shape"].update(num_heads=7), "multiple of num_heads"),
        (lambda values: values["shape"].update(model_width="256"), "shape.model_width .'256'. must be int"),
        (lambda values: values.update(target_languages=[{"code": 3}]), r"target_languages\[0\].code .3. must be str"),
        (
            lambda values: values["golden"].append(GOLDEN | {"num_beams": "4"}),
            r"golden\[\d\].num_beams .'4'. must be int",
        ),
        (lambda values: values["golden"].append(GOLDEN | {"num_beams": 0}), "num_beams of golden 'a' .0. must be >= 1"),
    ],
)
def test_a_manifest_of_another_form_is_refused(bundle: Path, change: Callable[[dict], None], complaint: str) -> None:  # type: ignore[type-arg]
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=complaint):
        Bundle.open(bundle)


@pytest.mark.parametrize("part", ["decoding", "shape", None])
def test_a_bundle_of_a_newer_version_is_refused_and_said_to_be_one(bundle: Path, part: str | None) -> None:
    """What the field says would not be done."""
    change_manifest(bundle, lambda values: (values[part] if part else values).update(sings=True))
    with pytest.raises(BundleError, match="has 'sings', which this version of Dragoman does not know: .* newer one"):
        Bundle.open(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '{"format_version": 1}'])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    write_manifest(bundle, text)
    with pytest.raises(BundleError, match=f"{MANIFEST} is damaged"):
        Bundle.open(bundle)


def test_neither_a_folder_nor_a_zip(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither"):
        Bundle.open(tmp_path / "nothing")


def test_a_folder_whose_name_is_no_utf8_is_refused(bundle: Path) -> None:
    renamed = bundle.rename(bundle.with_name(os.fsdecode(b"caf\xe9")))
    with pytest.raises(BundleError, match="is not valid UTF-8"):
        Bundle.open(renamed)


def test_swapped_graphs_are_found_by_their_inputs(bundle: Path) -> None:
    one, other = bundle / "cpu-int8/encoder.onnx", bundle / "cpu-int8/score.onnx"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    list_again(bundle, "cpu-int8/encoder.onnx", "cpu-int8/score.onnx")
    with pytest.raises(BundleError, match=r"encoder\.onnx is not the graph"):
        Translator.load(bundle, SETTINGS)


def test_a_vocabulary_of_another_size_is_found(bundle: Path) -> None:
    change_manifest(bundle, lambda values: values["shape"].update(vocab_size=317))
    with pytest.raises(BundleError, match="318 pieces, the model 317"):
        Translator.load(bundle, SETTINGS)


def test_garbage_with_the_right_checksum_is_no_graph(bundle: Path) -> None:
    (bundle / "cpu-int8/decoder-4.onnx").write_bytes(b"garbage")
    list_again(bundle, "cpu-int8/decoder-4.onnx")
    with pytest.raises(BundleError, match="cannot be loaded"):
        Translator.load(bundle, SETTINGS)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Translator]:
    """Translators that were closed."""
    found: list[Translator] = []
    close = Translator.close
    monkeypatch.setattr(Translator, "close", lambda self, *given: (found.append(self), close(self, *given))[1])
    return found


@pytest.mark.parametrize("place", [0, -1])
def test_altered_weights_do_not_say_the_golden_translations(bundle: Path, closed: list[Translator], place: int) -> None:
    translator = Translator.load(bundle, SETTINGS)
    source = "the red house"
    ids = list(translator.translate([source], DecodeOptions(num_beams=1))[0].alternatives[0].token_ids)
    translator.close()
    golden = {"precision": translator.info.precision, "source": source, "num_beams": 1, "ids": ids}
    change_manifest(bundle, lambda values: values.update(golden=[golden]))
    Translator.load(bundle, SETTINGS).close()
    ids[place] += 1
    change_manifest(bundle, lambda values: values.update(golden=[golden]))
    with pytest.raises(BundleError, match="golden translation 'the red house'"):
        Translator.load(bundle, SETTINGS)
    assert len(set(closed)) == 3, "its threads would run on"


def test_a_loaded_bundle_leaves_no_copy(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    Translator.load(Path(archive), SETTINGS).close()
    assert list(place.iterdir()) == []
    change_manifest(bundle, lambda values: values["shape"].update(vocab_size=317))
    shutil.make_archive(str(tmp_path / "packed"), "zip", bundle)
    with pytest.raises(BundleError, match="318 pieces"):
        Translator.load(Path(archive), SETTINGS)
    assert list(place.iterdir()) == []


def test_a_precision_that_is_not_there_is_named_with_those_that_are(bundle: Path) -> None:
    with pytest.raises(BundleError, match="cpu-fp16.*cpu-fp32"):
        Translator.load(bundle, EngineSettings(precision="fp16"))
