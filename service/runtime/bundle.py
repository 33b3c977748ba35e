"""A bundle: the contract between export and service, and the check that one is whole.

Knows: the manifest, its version, the files it lists. Does not know: what is in a graph, who uses it.

A bundle is a folder, or one .zip of it, with ``manifest.json`` and the files that the manifest lists with their
sizes and sha256; beside it ``manifest.sha256``, as sha256sum writes it, tells whether the manifest itself is whole.
Nothing else in the folder is read, and nothing is ever unpickled.
"""

import hashlib
import json
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from service.errors import BundleError
from service.runtime.archive import unpack
from service.runtime.folder_kind import hint
from service.runtime.manifest_check import check_manifest, read_fields
from service.runtime.scratch import ScratchFolder

FORMAT_VERSION = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
MAX_MANIFEST_BYTES = 4 << 20
READ_BYTES = 1 << 20
TABLE_FILES = ("source.spm", "target.spm", "pieces.json")  # of an imported model's tokenizer


@dataclass(frozen=True, slots=True)
class Graphs:
    """One precision: files relative to the bundle.

    Attributes:
        decoder: by the most beams a sentence may have in that graph. weights: the tensors all of them share.
        move, store: how a cache in device memory is changed in place; empty for a precision of the CPU.
    """

    encoder: str
    decoder: Mapping[int, str]
    score: str
    weights: str
    move: str = ""
    store: str = ""

    @property
    def files(self) -> set[str]:
        """All of them."""
        named = {self.encoder, self.score, self.weights, self.move, self.store, *self.decoder.values()}
        return named - {""}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the service must know of the model to keep its caches. Letters: model/transformer.py's dimension key."""

    vocab_size: int
    model_width: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int

    @property
    def head_width(self) -> int:
        return self.model_width // self.num_heads


@dataclass(frozen=True, slots=True)
class Golden:
    """A translation that the server replays before it serves: token ids, end token included."""

    precision: str
    source: str
    num_beams: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """A language of a model that has several on a side, chosen by the request.

    Attributes:
        code: BCP-47. prefix: token ids put before every source of (or for) this language.
        first: token ids that every translation into this language begins with; a target only.
    """

    code: str
    prefix: tuple[int, ...] = ()
    first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How this model must be decoded, whatever a request asks for.

    Attributes:
        banned: token ids that never stand in a translation; probabilities are not rescaled for it.
        force_end: a translation that reaches its limit of tokens ends with the end token, at no cost.
        stop_at_beams: beam search ends as soon as it has as many finished hypotheses as beams.
        max_length: target tokens of a sentence where neither request nor server says; 0: by the source's length.
        no_repeat_ngram_size, min_length: decode options of these names where a request has 0.
        lowers_capitals, plain_quotes: how sentences are read (service/text/reading.py).
    """

    banned: tuple[int, ...] = ()
    force_end: bool = False
    stop_at_beams: bool = False
    max_length: int = 0
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    lowers_capitals: bool = False
    plain_quotes: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes:
        source_language, target_language: the first where there are several.
        max_source_tokens: longest sentence the model takes, end token counted; longer ones are split by the service.
        max_target_tokens: most tokens a sentence's translation may have, end token counted.
        vocabulary: a SentencePiece model whose ids are the model's; or pieces.json of an imported model's
            tokenizer, whose SentencePiece models stand beside it (service/runtime/piece_tokenizer.py).
        source_languages, target_languages: where requests can choose; empty: there is only the one.
        card: free-form JSON for people: training text and its terms, scores with their signatures, known failures.
    """

    name: str
    version: str
    source_language: str
    target_language: str
    shape: Shape
    max_source_tokens: int
    max_target_tokens: int
    vocabulary: str
    precisions: Mapping[str, Graphs]
    golden: tuple[Golden, ...] = ()
    source_languages: tuple[Language, ...] = ()
    target_languages: tuple[Language, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """All files of the tokenizer."""
        return TABLE_FILES if self.vocabulary == TABLE_FILES[-1] else (self.vocabulary,)


def manifest_json(manifest: Manifest, files: Mapping[str, tuple[int, str]]) -> str:
    """The text of manifest.json; ``files`` maps each path to its size and sha256."""
    listed = {path: {"size": size, "sha256": digest} for path, (size, digest) in sorted(files.items())}
    values = {"format_version": FORMAT_VERSION} | asdict(manifest) | {"files": listed}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def seal_of(manifest: bytes) -> bytes:
    """The content of manifest.sha256 for that content of manifest.json: what ``sha256sum manifest.json`` prints."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def check_seal(root: Path, manifest: bytes) -> None:
    path = root / SEAL
    try:
        with path.open("rb") as file:
            seal = file.read(READ_BYTES)
    except FileNotFoundError:
        raise BundleError(
            f"{path} is missing: the checksum of {MANIFEST}. Bundles from before it was asked for, and manifests "
            f"written by hand, get it with `sha256sum {MANIFEST} > {SEAL}` in the bundle's folder"
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    if seal != seal_of(manifest):
        raise BundleError(f"{root / MANIFEST} was altered, or {SEAL} was: it holds another sha256")


def parse_manifest(text: str, where: str) -> tuple[Manifest, dict[str, tuple[int, str]]]:
    try:
        values = json.loads(text)
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(f"{where}: format version {version} cannot be read; this program reads {FORMAT_VERSION}")
        files = {path: (int(entry["size"]), str(entry["sha256"])) for path, entry in values.pop("files").items()}
        precisions = {
            name: read_fields(Graphs, graphs | {"decoder": {int(k): v for k, v in graphs["decoder"].items()}}, where)
            for name, graphs in values.pop("precisions").items()
        }
        golden = tuple(read_fields(Golden, entry, where) for entry in values.pop("golden"))
        shape = read_fields(Shape, values.pop("shape"), where)
        for side in ("source_languages", "target_languages"):
            values[side] = tuple(read_fields(Language, entry, where) for entry in values.get(side, ()))
        values["decoding"] = read_fields(Decoding, values.get("decoding", {}), where)
        read = {"shape": shape, "precisions": precisions, "golden": golden}
        manifest = read_fields(Manifest, values | read, where)
        check_manifest(manifest)
        return manifest, files
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{where} is damaged: {type(error).__name__}: {error}") from error


def safe_path(root: Path, name: str) -> Path:
    """The file ``name`` of the bundle at ``root``.

    Raises:
        BundleError: the name is absolute, climbs out of the bundle, or is a link or no plain file.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        raise BundleError(f"{root / MANIFEST}: path {name!r} leaves the bundle")
    path = root
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{path} is a link; bundles hold plain files only")
    if not path.exists():
        raise BundleError(f"{path} is missing")
    if not stat.S_ISREG(path.stat().st_mode):
        raise BundleError(f"{path} is not a plain file")
    return path


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path, size: int, digest: str) -> None:
    actual = path.stat().st_size
    if actual != size:
        raise BundleError(f"{path} has {actual} bytes, the manifest says {size}: truncated or altered")
    if sha256_of(path) != digest:
        raise BundleError(f"{path} was altered: its sha256 is not the manifest's")


class Bundle:
    """An opened and checked bundle.

    Attributes:
        root: the folder its files are in. manifest: what it says of itself. origin: the folder or .zip it came from.
    """

    def __init__(self, root: Path, manifest: Manifest, scratch: ScratchFolder | None, origin: Path) -> None:
        self.root, self.manifest, self.scratch, self.origin = root, manifest, scratch, origin

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Reads the manifest of a folder or .zip and checks every file it lists.

        Raises:
            BundleError: not a bundle, another format version, or a file is missing, altered or out of place.
        """
        if path.is_file() and zipfile.is_zipfile(path):
            try:
                scratch = ScratchFolder()
            except OSError as error:
                raise BundleError(f"{path} cannot be unpacked: {error.strerror}") from None
            try:
                unpack(path, scratch.path)
                return cls(scratch.path, read_manifest(scratch.path), scratch, path)
            except BaseException as error:
                scratch.close()
                if isinstance(error, BundleError):  # who gave a .zip does not know where it was unpacked
                    raise BundleError(str(error).replace(str(scratch.path), str(path))) from error
                raise
        if not path.is_dir():
            raise BundleError(f"{path} is neither a bundle's folder nor a .zip of one")
        if any("\ud800" <= character <= "\udfff" for character in str(path)):  # what Python makes of other bytes
            raise BundleError(f"the name of {path} is not valid UTF-8; ONNX Runtime opens no such file")
        return cls(path, read_manifest(path), None, path)

    def path(self, name: str) -> Path:
        return self.root / name

    def graphs(self, precision: str) -> Graphs:
        """Raises BundleError where the bundle has no such precision."""
        try:
            return self.manifest.precisions[precision]
        except KeyError:
            have = ", ".join(self.manifest.precisions)
            raise BundleError(f"{self.origin} has no precision {precision!r}; it has {have}") from None

    def close(self) -> None:
        """Removes what a .zip was unpacked to; files already mapped stay readable."""
        if self.scratch is not None:
            self.scratch.close()


def read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
        content = path.read_bytes()
        check_seal(root, content)
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise BundleError(f"{root} is not a bundle: it has no {MANIFEST}{hint(root, 'bundle')}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    manifest, files = parse_manifest(text, str(path))
    used = set(manifest.vocabulary_files)
    for graphs in manifest.precisions.values():
        used |= graphs.files
    for name in sorted(used - files.keys()):
        raise BundleError(f"{path} uses {name!r} but does not list it under 'files'")
    for name, (size, digest) in files.items():
        check_file(safe_path(root, name), size, digest)
    return manifest
