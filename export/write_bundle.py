"""Makes a bundle of a model: graphs, weights, manifest; checked, then moved into place whole.

Knows: which files a bundle has. Does not know: operators (layers.py), what makes a graph right (verify.py).
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from export.cache_graphs import move_graph, store_graph
from export.calibrate import equalize, record
from export.candidates import padded, padded_size
from export.golden import golden_translations, single_sentences
from export.graph_runner import GraphRunner, runs_with_kernels
from export.graphs import DecoderStep, encoder_graph, score_graph
from export.matrices import Array, Float16, Float32, Matrices, PerRowInt8, StaticInt8
from export.verify import Report, verify
from export.weights_file import WeightsFile
from model.checkpoint import Description
from model.config import HEAD_WIDTHS
from model.transformer import Transformer
from service.decoding.options import MAX_BEAMS
from service.runtime.bundle import (
    MANIFEST,
    SEAL,
    Decoding,
    Graphs,
    Language,
    Manifest,
    Shape,
    manifest_json,
    seal_of,
    sha256_of,
)
from service.runtime.tokenizer import Tokenizer

PRECISIONS = ("cpu-int8", "cpu-fp32", "cuda-fp16")
DEFAULT_PRECISIONS = ("cpu-int8", "cpu-fp32")
# Decoder graphs are made for these many beams; a sentence uses the narrowest that fits.
BEAM_WIDTHS = (1, 2, 4, 6, 8, MAX_BEAMS)
# Fewer where each graph holds its own copy of the weights in the device's memory.
CUDA_BEAM_WIDTHS = (1, 4, MAX_BEAMS)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is made."""

    name: str
    """What ListModels and metrics call the model."""
    version: str
    """Which of several versions of that model this is."""
    precisions: tuple[str, ...] = DEFAULT_PRECISIONS
    """Some of PRECISIONS."""
    max_source_tokens: int = 256
    """Longest sentence taken, end token counted; the service splits longer ones."""
    max_target_tokens: int = 384
    """Most tokens of a translation, end token counted."""
    calibration_texts: tuple[str, ...] = ()
    """Source sentences like those to be served, to fix the int8 scales on; none: scales per row, slower."""
    golden_texts: tuple[str, ...] = ()
    """Source sentences to choose golden translations from."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Training text, licence, scores, known failures."""
    source_languages: tuple[Language, ...] = ()
    """Those that requests choose from, the default first; none: the description's is the only one."""
    target_languages: tuple[Language, ...] = ()
    """As source_languages."""
    decoding: Decoding = field(default_factory=Decoding)
    """What the model demands of every search."""

    @property
    def languages(self) -> tuple[Language, Language]:
        """Source and target where nobody chooses."""
        return (*self.source_languages, Language(""))[0], (*self.target_languages, Language(""))[0]


class ExportError(Exception):
    """A bundle cannot be made as asked; the message says why."""


def shape_of(model: Transformer) -> Shape:
    config = model.config
    return Shape(
        vocab_size=config.vocab_size,
        model_width=config.model_width,
        num_heads=config.num_heads,
        num_encoder_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
    )


def state_arrays(model: Transformer) -> dict[str, Array]:
    state = {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}
    return state | {"positions": model.positions.numpy()}


def prepare(
    model: Transformer, tokenizer: Tokenizer, precision: str, options: ExportOptions
) -> tuple[Mapping[str, Array], Matrices]:
    """The weights to write and how their products are computed."""
    state = state_arrays(model)
    if precision == "cpu-fp32":
        return state, Float32()
    if precision == "cuda-fp16":
        return state, Float16()
    source, target = options.languages
    encoded = tokenizer.encode(options.calibration_texts)
    sources = [[*target.prefix, *source.prefix, *ids, tokenizer.end] for ids in encoded if ids]
    sources = [ids for ids in sources if len(ids) <= model.config.max_positions]
    if not sources:
        return state, PerRowInt8()
    recorders = record(model, sources, tokenizer.pad, tokenizer.start, tokenizer.end, target.first)
    state, scales, cache_scales = equalize(model, state, recorders)
    return state, StaticInt8(scales, cache_scales)


def write_graphs(
    model: Transformer, state: Mapping[str, Array], matrices: Matrices, folder: Path, precision: str
) -> Graphs:
    """Writes all graphs of one precision into ``folder/precision``."""
    target = folder / precision
    target.mkdir(parents=True)
    weights, config = WeightsFile("weights.bin"), model.config
    if matrices.candidate_blocks and (size := padded_size(config.vocab_size)) != config.vocab_size:
        state = padded(state, config.vocab_size, config.tie_embeddings)
        config = replace(config, vocab_size=size, output_bias=True)
    parts = (config, state)
    graphs = {"encoder": encoder_graph(parts, matrices, weights), "score": score_graph(parts, matrices, weights)}
    on_device = precision.startswith("cuda")
    widths = CUDA_BEAM_WIDTHS if on_device else BEAM_WIDTHS
    for beams in widths:
        graphs[f"decoder-{beams}"] = DecoderStep(parts, matrices, weights, beams).build()
    if on_device:
        head_width = model.config.model_width // model.config.num_heads
        graphs["move"] = move_graph(matrices.dtype, head_width)
        graphs["store"] = store_graph(matrices.dtype, model.config.num_decoder_layers, head_width)
    weights.write(target)
    for name, graph in graphs.items():
        path = target / f"{name}.onnx"
        path.write_bytes(graph.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path))
    return Graphs(
        encoder=f"{precision}/encoder.onnx",
        decoder={beams: f"{precision}/decoder-{beams}.onnx" for beams in widths},
        score=f"{precision}/score.onnx",
        weights=f"{precision}/weights.bin",
        move=f"{precision}/move.onnx" if on_device else "",
        store=f"{precision}/store.onnx" if on_device else "",
    )


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write into; it takes the place of ``folder`` only if nothing was raised.

    Raises:
        ExportError: another process is writing the same.
    """
    folder = folder.resolve()  # a link stays one, and leads to the new
    partial, before = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.replaced")
    with alone_in(partial, folder):
        if before.exists() and not folder.exists():  # killed between the two renames below
            before.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
        empty(partial)
        try:
            yield partial
            if folder.exists():
                folder.rename(before)
            partial.rename(folder)
        except BaseException:  # not after the rename: another process may have made its own by then
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            shutil.rmtree(before, ignore_errors=True)


@contextmanager
def alone_in(partial: Path, folder: Path) -> Iterator[None]:
    """The folder ``partial``, new or left by a process that was killed, for nobody else meanwhile.

    The lock is on the folder itself: it ends with the process, however that ends, and leaves no file behind.
    """
    partial.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise ExportError(f"another process is writing {folder}") from None
    try:
        if not is_locked(descriptor, partial):
            raise ExportError(f"another process is writing {folder}")
        yield
    finally:
        os.close(descriptor)


def is_locked(descriptor: int, path: Path) -> bool:
    """Whether this process has the lock now, and ``path`` is still the folder that was locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system that locks no folders, such as NFS: nobody is told there
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:  # renamed by who had the lock before
        return False


def is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_options(model: Transformer, options: ExportOptions, folder: Path) -> None:
    for precision in options.precisions:
        if precision not in PRECISIONS:
            raise ExportError(f"precision {precision!r} is unknown; known are {', '.join(PRECISIONS)}")
    limit, sides = model.config.max_positions, (options.source_languages, options.target_languages)
    prefix = sum(max((len(language.prefix) for language in side), default=0) for side in sides)
    # As the service asks of a manifest (service/runtime/manifest_check.py).
    for name, value, least in (
        ("source", options.max_source_tokens, prefix + 2),
        ("target", options.max_target_tokens, 2),
    ):
        if not least <= value <= limit:
            raise ExportError(f"max_{name}_tokens ({value}) must be in [{least}, the model's max_positions ({limit})]")
    if (width := model.config.model_width // model.config.num_heads) % HEAD_WIDTHS:
        raise ExportError(f"a head's width ({width}) must be a multiple of {HEAD_WIDTHS}: no fast attention has others")
    if any(bool(tensor.isnan().any()) for tensor in model.state_dict().values()):
        raise ExportError("the checkpoint holds weights that are no numbers")
    if folder.exists() and not (folder / MANIFEST).exists() and not is_empty_folder(folder):
        raise ExportError(f"{folder} exists and is not a bundle; choose another place or remove it")


def usable_golden_texts(tokenizer: Tokenizer, language: str, options: ExportOptions) -> list[str]:
    """Those whose answer the bundle can foretell. Raises ExportError: there are texts, and none is usable."""
    source, target = options.languages
    room = options.max_source_tokens - 1 - len(source.prefix) - len(target.prefix)
    texts = single_sentences(options.golden_texts, tokenizer, source.code or language, room)
    if options.golden_texts and not texts:
        raise ExportError(f"of {len(options.golden_texts)} golden texts none is one sentence of at most {room} tokens")
    return texts


def write_bundle(
    model: Transformer, tokenizer: Tokenizer, description: Description, folder: Path, options: ExportOptions
) -> dict[str, Report]:
    """Exports, verifies and writes a bundle; ``folder`` appears whole or stays as it was.

    Returns:
        What verification measured, by precision.

    Raises:
        ExportError: an option is out of range. VerificationError: a graph is not the model.
    """
    check_options(model, options, folder)
    shape, reports = shape_of(model), {}
    golden = []
    texts = usable_golden_texts(tokenizer, description.source_language, options)
    with whole_or_nothing(folder) as partial, torch.inference_mode():
        for name, content in tokenizer.files().items():
            (partial / name).write_bytes(content)
        precisions = {}
        for precision in options.precisions:
            state, matrices = prepare(model, tokenizer, precision, options)
            precisions[precision] = write_graphs(model, state, matrices, partial, precision)
        for precision, graphs in precisions.items():
            for with_kernels in runs_with_kernels(precision):
                runner = GraphRunner(partial, graphs, shape, tokenizer.start, with_kernels)
                reports[precision] = verify(model, runner, tokenizer.end, exact=precision.endswith("fp32"))
            rules = (options.max_target_tokens, options.languages, options.decoding)
            golden += golden_translations(runner, tokenizer, precision, texts, *rules)
        manifest = Manifest(
            name=options.name,
            version=options.version,
            source_language=description.source_language,
            target_language=description.target_language,
            shape=shape,
            max_source_tokens=options.max_source_tokens,
            max_target_tokens=options.max_target_tokens,
            vocabulary=next(reversed(tokenizer.files())),
            precisions=precisions,
            golden=tuple(golden),
            source_languages=options.source_languages,
            target_languages=options.target_languages,
            decoding=options.decoding,
            card=options.card,
        )
        write_manifest(partial, manifest)
    return reports


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json, which lists all other files of the folder, and its checksum."""
    own = (folder / MANIFEST, folder / SEAL)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path not in own)
    files = {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path)) for path in paths}
    content = manifest_json(manifest, files).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SEAL).write_bytes(seal_of(content))
