"""Parallel text on disk: read it, and say what is unfit and why.

Knows: file formats (two files side by side or one TSV; plain, gzip, bzip2, xz), the cleaning rules.
Does not know: how token ids are stored, batches, the model.
"""

import bz2
import gzip
import hashlib
import lzma
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from model.config import CorpusConfig
from model.scripts import is_in_script
from model.seen_pairs import SeenPairs
from model.variants import NOTHING, varied
from service.runtime.tokenizer import Tokenizer

PAIRS_PER_BLOCK = 10_000
"""Pairs tokenized at once."""


class CorpusError(ValueError):
    """The text cannot be used as it is; the message names the file and the line."""


def corpus_files(config: CorpusConfig) -> list[str]:
    """The one or two files of a corpus.

    Raises:
        CorpusError: one of them does not exist.
    """
    names = [name for name in (config.tsv, config.source, config.target) if name is not None]
    for name in names:
        if not Path(name).is_file():
            raise CorpusError(f"corpus {config.name!r}: there is no file {name}")
    return names


def open_bytes(path: Path) -> IO[bytes]:
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    found: IO[bytes] = openers.get(path.suffix, open)(path, "rb")
    return found


def read_lines(name: str) -> Iterator[str]:
    """Lines of a plain, .gz, .bz2 or .xz file of UTF-8, without their ends and without a byte order mark.

    Raises:
        CorpusError: the file cannot be opened, its compression is damaged or it is not UTF-8.
    """
    number = 0
    try:
        with open_bytes(Path(name)) as lines:
            for line in lines:
                number += 1
                text = line.decode("utf-8").rstrip("\r\n")
                yield text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name}: line {number} is not UTF-8 ({error.reason})") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        where = f" after line {number}" if number else ""
        raise CorpusError(f"{name}: cannot be read{where}: {getattr(error, 'strerror', None) or error}") from error


def read_pairs(config: CorpusConfig) -> Iterator[tuple[str, str]]:
    """(source, target) of each line, in file order, as the corpus' variant has it.

    Raises:
        CorpusError: a TSV line without exactly the two columns, two files of different length, or one of read_lines.
    """
    pairs = read_files(config)
    return pairs if config.variant is None else varied(pairs, config.variant)


def read_files(config: CorpusConfig) -> Iterator[tuple[str, str]]:
    if config.tsv is not None:
        yield from read_tsv(config.tsv)
    elif config.source is not None and config.target is not None:
        yield from read_two(config.source, config.target)
    else:
        raise CorpusError(f"corpus {config.name!r} has no files. This is a bug.")


def read_tsv(name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(name), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise CorpusError(f"{name}: line {number} has {len(columns)} columns, not 2")
        yield columns[0], columns[1]


def read_two(source_name: str, target_name: str) -> Iterator[tuple[str, str]]:
    targets = read_lines(target_name)
    for number, source in enumerate(read_lines(source_name), start=1):
        target = next(targets, None)
        if target is None:
            raise CorpusError(f"{target_name} ends before line {number} of {source_name}")
        yield source, target
    if next(targets, None) is not None:
        raise CorpusError(f"{target_name} has more lines than {source_name}")


def reservoir(pairs: Iterator[tuple[str, str]], size: int, rng: random.Random) -> tuple[list[tuple[str, str]], int]:
    """``size`` of the pairs, each with the same chance, in one pass (Vitter 1985, algorithm R), and their number.

    They are all of them, in order, where there are no more than ``size``.
    """
    chosen = list(islice(pairs, size))
    number = len(chosen) - 1
    for number, pair in enumerate(pairs, start=size):
        place = rng.randrange(number + 1)
        if place < size:
            chosen[place] = pair
    return chosen, number + 1


def sample_pairs(config: CorpusConfig, size: int, rng: random.Random) -> tuple[list[tuple[str, str]], int]:
    """reservoir() of a corpus.

    Raises:
        CorpusError: it cannot be read, or holds no text.
    """
    files = corpus_files(config)
    chosen, number = reservoir(read_pairs(config), size, rng)
    if len(chosen) == number and not any(side.strip() for pair in chosen for side in pair):
        why = "no text" if config.variant is None else f"nothing of which variant {config.variant} makes a pair"
        raise CorpusError(f"corpus {config.name!r}: no pair is fit for training: {why} in {' and '.join(files)}")
    return chosen, number


def unfit(source: str, target: str, num_source: int, num_target: int, config: CorpusConfig) -> str | None:
    """Why a pair is not used (one word that counts are kept under), or None where it is fit."""
    if config.variant is not None and (source, target) == NOTHING:
        return "no_variant"
    if not source.strip() or not target.strip() or not num_source or not num_target:
        return "empty"
    if max(num_source, num_target) > config.max_tokens:
        return "too_long"
    if max(num_source, num_target) > config.max_length_ratio * min(num_source, num_target) + 4:
        return "length_ratio"
    if config.drop_copies and source == target and num_source > 3:
        return "copy"
    for text, scripts in ((source, config.source_script), (target, config.target_script)):
        if scripts is not None and not is_in_script(text, scripts):
            return "wrong_script"
    return None


def pair_key(source: str, target: str) -> int:
    """64 bits that stand for a pair among those already seen: a number a pair instead of its text."""
    return int.from_bytes(hashlib.blake2b(f"{source}\t{target}".encode(), digest_size=8).digest(), "little")


def fit_pairs(
    pairs: Iterable[tuple[str, str]],
    config: CorpusConfig,
    tokenizer: Tokenizer,
    counts: Counter[str],
    on_drop: Callable[[int, str], object] = lambda line, reason: None,
) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of the pairs that are fit, at most max_pairs of them.

    Args:
        counts: grows by what was read, what was kept, and what was dropped for each reason.
        on_drop: is told the line number, from 1, and the reason of each pair that is dropped.
    """
    seen = SeenPairs()
    for sources, targets in in_blocks(pairs, PAIRS_PER_BLOCK):
        encoded = zip(sources, targets, tokenizer.encode(sources), tokenizer.encode(targets), strict=True)
        for source, target, source_ids, target_ids in encoded:
            counts["read"] += 1
            reason = unfit(source, target, len(source_ids), len(target_ids), config)
            if reason is None and config.drop_duplicates:
                reason = None if seen.add(pair_key(source, target)) else "duplicate"
            counts[reason or "kept"] += 1
            if reason is None:
                yield source_ids, target_ids
            else:
                on_drop(counts["read"], reason)
            if counts["kept"] == config.max_pairs:
                return


def in_blocks(pairs: Iterable[tuple[str, str]], size: int) -> Iterator[tuple[list[str], list[str]]]:
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
