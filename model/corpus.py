"""Parallel text on disk: read it, say what is unfit and why, and store it as token ids that are memory-mapped.

Knows: file formats (two files side by side or one TSV; plain, gzip, bzip2, xz), the cleaning rules, the token store.
Does not know: batches, shuffling, the model.

A store is two files. For pair i, with o = offsets:

    tokens:   [... source of pair i ... | ... target of pair i ... | source of pair i+1 ...]     uint16 or int32
    offsets:   o[2i]                     o[2i+1]                    o[2i+2]                      int64, 2N + 1 of them

so pair i is tokens[o[2i]:o[2i+1]] and tokens[o[2i+1]:o[2i+2]]. End tokens are not stored. Pairs keep their order.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.config import CorpusConfig
from service.runtime.tokenizer import Tokenizer

STORE_VERSION = 1
PAIRS_PER_WRITE = 10_000


class CorpusError(ValueError):
    """The text cannot be used as it is; the message names the file and the line."""


def open_text(path: Path) -> IO[str]:
    """Opens plain, .gz, .bz2 or .xz text as UTF-8; an undecodable byte raises UnicodeDecodeError when read."""
    openers: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8", newline="\n")


def read_pairs(config: CorpusConfig) -> Iterator[tuple[str, str]]:
    """(source, target) of each line, in file order.

    Raises:
        CorpusError: a TSV line without exactly the two columns, or two files of different length.
    """
    if config.tsv is not None:
        with open_text(Path(config.tsv)) as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.rstrip("\r\n").split("\t")
                if len(columns) != 2:
                    raise CorpusError(f"{config.tsv}: line {number} has {len(columns)} columns, not 2")
                yield columns[0], columns[1]
        return
    if config.source is None or config.target is None:
        raise CorpusError(f"corpus {config.name!r} needs 'tsv', or both 'source' and 'target'")
    with open_text(Path(config.source)) as sources, open_text(Path(config.target)) as targets:
        missing = object()
        for number, source in enumerate(sources, start=1):
            target = next(targets, missing)
            if not isinstance(target, str):
                raise CorpusError(f"{config.target} ends before line {number} of {config.source}")
            yield source.rstrip("\r\n"), target.rstrip("\r\n")
        if next(targets, missing) is not missing:
            raise CorpusError(f"{config.target} has more lines than {config.source}")


def unfit(source: str, target: str, num_source: int, num_target: int, config: CorpusConfig) -> str | None:
    """Why a pair is not used (one word that counts are kept under), or None where it is fit."""
    if not source.strip() or not target.strip() or not num_source or not num_target:
        return "empty"
    if max(num_source, num_target) > config.max_tokens:
        return "too_long"
    if max(num_source, num_target) > config.max_length_ratio * min(num_source, num_target) + 4:
        return "length_ratio"
    if config.drop_copies and source == target and num_source > 3:
        return "copy"
    return None


def pair_key(source: str, target: str) -> int:
    """64 bits that stand for a pair among those already seen: eight bytes a pair instead of its text."""
    return int.from_bytes(hashlib.blake2b(f"{source}\t{target}".encode(), digest_size=8).digest(), "little")


class TokenStore:
    """A prepared corpus, memory-mapped: its size in memory does not grow with the text.

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
    names = [name for name in (config.tsv, config.source, config.target) if name is not None]
    files = [(name, os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in names]
    rules = [config.max_tokens, config.max_length_ratio, config.drop_copies, config.drop_duplicates, config.max_pairs]
    text = json.dumps([STORE_VERSION, files, rules, tokenizer.sha256])
    return hashlib.sha256(text.encode()).hexdigest()


def prepare(config: CorpusConfig, tokenizer: Tokenizer, folder: Path) -> TokenStore:
    """Cleans and tokenizes a corpus into ``folder`` unless that was done before; prints what was dropped and why."""
    report = folder / "report.json"
    stamp = fingerprint(config, tokenizer)
    if not report.exists() or json.loads(report.read_text())["fingerprint"] != stamp:
        folder.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        counts = write_store(config, tokenizer, folder)
        # The report is written last: a store whose preparation was interrupted has none and is made again.
        report.write_text(json.dumps({"fingerprint": stamp, "pairs": counts}, indent=2))
    counts = json.loads(report.read_text())["pairs"]
    print(f"corpus {config.name}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items()), flush=True)
    store = TokenStore(folder)
    if len(store) == 0:
        raise CorpusError(f"corpus {config.name!r}: no pair is fit for training: {counts}")
    return store


def write_store(config: CorpusConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, int]:
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
    counts: Counter[str] = Counter(read=0, kept=0)
    seen: set[int] = set()
    with RawArray(folder / "tokens.npy", dtype) as tokens, RawArray(folder / "lengths.npy", np.dtype("<i4"), 2) as sizes:
        with tqdm(read_pairs(config), desc=f"preparing {config.name}", unit=" pairs", mininterval=1, disable=None) as bar:
            for sources, targets in in_blocks(bar, PAIRS_PER_WRITE):
                encoded = zip(sources, targets, tokenizer.encode(sources), tokenizer.encode(targets), strict=True)
                for source, target, source_ids, target_ids in encoded:
                    counts["read"] += 1
                    reason = unfit(source, target, len(source_ids), len(target_ids), config)
                    if reason is None and config.drop_duplicates:
                        key = pair_key(source, target)
                        reason = "duplicate" if key in seen else None
                        seen.add(key)
                    if reason is not None:
                        counts[reason] += 1
                        continue
                    tokens.append(np.asarray(source_ids + target_ids, dtype))
                    sizes.append(np.asarray([len(source_ids), len(target_ids)], "<i4"))
                    counts["kept"] += 1
                    if counts["kept"] == config.max_pairs:
                        return finish_store(folder, tokens, sizes, counts)
        return finish_store(folder, tokens, sizes, counts)


def finish_store(folder: Path, tokens: "RawArray", sizes: "RawArray", counts: Counter[str]) -> dict[str, int]:
    tokens.close()
    sizes.close()
    lengths = np.load(folder / "lengths.npy", mmap_mode="r")
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths.reshape(-1), out=offsets[1:])
    np.save(folder / "offsets.npy", offsets)
    return dict(counts)


def in_blocks(pairs: "Iterator[tuple[str, str]] | tqdm[tuple[str, str]]", size: int) -> Iterator[tuple[list[str], list[str]]]:
    sources: list[str] = []
    targets: list[str] = []
    for source, target in pairs:
        sources.append(source)
        targets.append(target)
        if len(sources) == size:
            yield sources, targets
            sources, targets = [], []
    if sources:
        yield sources, targets


class RawArray:
    """Appends to a .npy file whose length is not known yet: the header is written again at the end."""

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
            self.file.close()
