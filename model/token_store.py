"""A prepared corpus: token ids on disk, memory-mapped.

Knows: the files of a store, and when they are out of date. Does not know: what makes a pair fit, batches, the model.

A store's arrays. For pair i, with o = offsets:

    tokens:   [... source of pair i ... | ... target of pair i ... | source of pair i+1 ...]     uint16 or int32
    offsets:   o[2i]                     o[2i+1]                    o[2i+2]                      int64, 2N + 1 of them

so pair i is tokens[o[2i]:o[2i+1]] and tokens[o[2i+1]:o[2i+2]]. End tokens are not stored. Pairs keep their order.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.config import CorpusConfig
from model.corpus import CorpusError, corpus_files, fit_pairs, read_pairs
from model.variants import VARIANTS_VERSION
from service.runtime.tokenizer import Tokenizer

STORE_VERSION = 2
OFFSETS_PER_BLOCK = 1_000_000


class TokenStore:
    """N pairs, memory-mapped: the size in memory does not grow with the text.

    Attributes:
        lengths: (N, 2) int32, tokens of source and target of each pair, end tokens not counted.
    """

    def __init__(self, folder: Path) -> None:
        self.offsets: NDArray[np.int64] = np.load(folder / "offsets.npy", mmap_mode="r")
        self.tokens: NDArray[np.generic] = np.load(folder / "tokens.npy", mmap_mode="r")
        self.lengths: NDArray[np.int32] = np.load(folder / "lengths.npy", mmap_mode="r")

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // 2

    def source(self, pair: int) -> NDArray[np.generic]:
        return self.tokens[self.offsets[2 * pair] : self.offsets[2 * pair + 1]]

    def target(self, pair: int) -> NDArray[np.generic]:
        return self.tokens[self.offsets[2 * pair + 1] : self.offsets[2 * pair + 2]]


def fingerprint(config: CorpusConfig, tokenizer: Tokenizer) -> str:
    """Changes when the files (by size and time), the cleaning rules or the vocabulary do: when a store is stale."""
    files = [(name, os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in corpus_files(config)]
    rules: list[object] = [
        config.max_tokens,
        config.max_length_ratio,
        config.drop_copies,
        config.drop_duplicates,
        config.max_pairs,
    ]
    rules += [config.source_script, config.target_script]
    rules += [config.variant, VARIANTS_VERSION] if config.variant else []
    text = json.dumps([STORE_VERSION, files, rules, tokenizer.sha256])
    return hashlib.sha256(text.encode()).hexdigest()


def read_report(folder: Path, stamp: str) -> dict[str, int] | None:
    """Counts of an earlier preparation, or None where there is none or it is out of date."""
    try:
        report = json.loads((folder / "report.json").read_text())
        counts: dict[str, int] = report["pairs"]
        return counts if report["fingerprint"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(
    config: CorpusConfig, tokenizer: Tokenizer, folder: Path, say: Callable[[str], object] = print
) -> TokenStore:
    """Cleans and tokenizes a corpus into ``folder`` unless that was done before; says what was dropped and why.

    Raises:
        CorpusError: the files cannot be used, or no pair is fit for training.
        OSError: the folder cannot be written, for want of room for instance; it is named.
    """
    stamp = fingerprint(config, tokenizer)
    counts = read_report(folder, stamp)
    if counts is None or not is_whole(folder, counts):
        if counts is None and (folder / "report.json").exists():
            say(f"corpus {config.name}: its files, its rules or the vocabulary have changed since")
        try:
            counts = make_store(config, tokenizer, folder, stamp)
        except OSError as error:
            if error.filename is None:  # a write does not say where
                error.filename = str(folder)
            raise
    say(f"corpus {config.name}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items()))
    return TokenStore(folder)


def make_store(config: CorpusConfig, tokenizer: Tokenizer, folder: Path, stamp: str) -> dict[str, int]:
    """A store and its report, which is written last: one whose preparation was interrupted has none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    counts = write_store(config, tokenizer, folder)
    (folder / "report.json").write_text(json.dumps({"fingerprint": stamp, "pairs": counts}, indent=2))
    return counts


def is_whole(folder: Path, counts: Mapping[str, int]) -> bool:
    """Whether the files are there and as long as the report says; not whether each number is right."""
    try:
        store = TokenStore(folder)
        return len(store) == len(store.lengths) == counts["kept"] and int(store.offsets[-1]) == len(store.tokens)
    except (OSError, ValueError, KeyError, IndexError, EOFError):
        return False


def write_store(config: CorpusConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, int]:
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
    counts: Counter[str] = Counter(read=0, kept=0)
    with (
        RawArray(folder / "tokens.npy", dtype) as tokens,
        RawArray(folder / "lengths.npy", np.dtype("<i4"), columns=2) as lengths,
        (folder / "dropped.tsv").open("w") as dropped,
        tqdm(read_pairs(config), desc=f"preparing {config.name}", unit=" pairs", mininterval=1, disable=None) as bar,
    ):

        def drop(line: int, reason: str) -> None:
            dropped.write(f"{line}\t{reason}\n")

        for source_ids, target_ids in fit_pairs(bar, config, tokenizer, counts, drop):
            tokens.append(np.asarray(source_ids + target_ids, dtype))
            lengths.append(np.asarray([len(source_ids), len(target_ids)], "<i4"))
    if counts["kept"] == 0:
        raise CorpusError(f"corpus {config.name!r}: no pair is fit for training: {dict(counts)}")
    write_offsets(folder)
    return dict(counts)


def write_offsets(folder: Path) -> None:
    """offsets.npy of lengths.npy, a block at a time."""
    sizes = np.load(folder / "lengths.npy", mmap_mode="r").reshape(-1)
    with RawArray(folder / "offsets.npy", np.dtype("<i8")) as offsets:
        end = np.zeros(1, "<i8")
        offsets.append(end)
        for start in range(0, len(sizes), OFFSETS_PER_BLOCK):
            ends = np.cumsum(sizes[start : start + OFFSETS_PER_BLOCK], dtype="<i8") + end
            offsets.append(ends)
            end = ends[-1:]


class RawArray:
    """Appends to a .npy file whose length is not known yet: the header is written again at the end.

    Args:
        columns: of a two-dimensional array; 0: one dimension.
    """

    HEADER_BYTES = 128

    def __init__(self, path: Path, dtype: np.dtype[np.generic], columns: int = 0) -> None:
        self.file = path.open("wb")
        self.dtype, self.columns, self.num_values = dtype, columns, 0
        self.write_header()

    def __enter__(self) -> "RawArray":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_header(self) -> None:
        rows = self.num_values // max(self.columns, 1)
        shape = (rows, self.columns) if self.columns else (rows,)
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        self.file.seek(0)
        self.file.write(b"\x93NUMPY\x01\x00" + (self.HEADER_BYTES - 10).to_bytes(2, "little"))
        self.file.write(text.ljust(self.HEADER_BYTES - 11).encode() + b"\n")

    def append(self, values: NDArray[np.generic]) -> None:
        self.file.write(values.tobytes())
        self.num_values += values.size

    def close(self) -> None:
        if not self.file.closed:
            self.write_header()
            self.file.flush()
            os.fsync(self.file.fileno())  # the report that comes after says that all is there
            self.file.close()
