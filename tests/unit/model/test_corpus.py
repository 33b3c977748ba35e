"""Reading, cleaning and storing parallel text."""

import bz2
import errno
import gzip
import lzma
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import CorpusConfig
from model.corpus import CorpusError, fit_pairs, read_pairs, reservoir, unfit
from model.scripts import is_in_script
from model.token_store import RawArray, TokenStore, fingerprint, prepare
from service.runtime.tokenizer import Tokenizer

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def tsv(path: Path, text: str | bytes) -> CorpusConfig:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return CorpusConfig(name="test", tsv=str(path))


class TestReading:
    @pytest.mark.parametrize("suffix", COMPRESSORS)
    def test_compressed_or_not(self, suffix: str, tmp_path: Path) -> None:
        config = tsv(tmp_path / f"a.tsv{suffix}", COMPRESSORS[suffix]("un\tdeux\r\nété\t日本\x0b\u2028\n".encode()))
        assert list(read_pairs(config)) == [("un", "deux"), ("été", "日本\x0b\u2028")]

    def test_two_files(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1\n2\n")
        (tmp_path / "b").write_text("un\ndeux\n")
        config = CorpusConfig(name="test", source=str(tmp_path / "a"), target=str(tmp_path / "b"))
        assert list(read_pairs(config)) == [("1", "un"), ("2", "deux")]

    @pytest.mark.parametrize(("source", "target"), [("1\n2\n", "un\n"), ("1\n", "un\ndeux\n"), ("", "un\n")])
    def test_files_of_different_length(self, source: str, target: str, tmp_path: Path) -> None:
        (tmp_path / "a").write_text(source)
        (tmp_path / "b").write_text(target)
        config = CorpusConfig(name="test", source=str(tmp_path / "a"), target=str(tmp_path / "b"))
        with pytest.raises(CorpusError, match="ends before line 2 of|has more lines than"):
            list(read_pairs(config))

    @pytest.mark.parametrize(("line", "columns"), [("only one", 1), ("a\tb\tc", 3), ("", 1)])
    def test_wrong_number_of_columns(self, line: str, columns: int, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match=f"a.tsv: line 2 has {columns} columns, not 2"):
            list(read_pairs(tsv(tmp_path / "a.tsv", f"a\tb\n{line}\n")))

    @pytest.mark.parametrize("number", [1, 2, 5001])
    def test_not_utf8(self, number: int, tmp_path: Path) -> None:
        """The line itself is named, also behind what is read at once."""
        content = b"a\tb\n" * (number - 1) + b"\xff\tc\n" + b"a\tb\n" * 5000
        with pytest.raises(CorpusError, match=rf"a\.tsv: line {number} is not UTF-8"):
            list(read_pairs(tsv(tmp_path / "a.tsv", content)))

    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path) -> None:
        """It is one at the start of a file only."""
        content = "\ufeff1\tun\n\ufeff2\tdeux\n"
        assert list(read_pairs(tsv(tmp_path / "a.tsv", content))) == [("1", "un"), ("\ufeff2", "deux")]
        (tmp_path / "b").write_text("\ufeffun\ndeux\n", encoding="utf-8")
        config = CorpusConfig(name="test", source=str(tmp_path / "b"), target=str(tmp_path / "b"))
        assert list(read_pairs(config)) == [("un", "un"), ("deux", "deux")]

    @pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
    def test_damaged_compression(self, suffix: str, tmp_path: Path) -> None:
        packed = COMPRESSORS[suffix](b"a\tb\n" * 1000)
        with pytest.raises(CorpusError, match="cannot be read(: | after line [1-9])"):
            list(read_pairs(tsv(tmp_path / f"a.tsv{suffix}", packed[: len(packed) // 2])))
        with pytest.raises(CorpusError, match="cannot be read(: | after line [1-9])"):
            list(read_pairs(tsv(tmp_path / f"b.tsv{suffix}", b"not compressed at all")))


class TestCleaning:
    def reasons(self, config: CorpusConfig, tokenizer: Tokenizer) -> Counter[str]:
        counts: Counter[str] = Counter()
        list(fit_pairs(read_pairs(config), config, tokenizer, counts))
        return counts

    @pytest.mark.parametrize(
        ("pair", "reason"),
        [
            ("1 2\tun deux", "kept"),
            ("\tun", "empty"),
            ("1\t ", "empty"),
            ("1 2 3 4 5 6 7 8 9\tun", "length_ratio"),
            ("1 2 3 4 5 6 7 8 9 0 " * 5 + "\tun deux", "too_long"),
            ("1 2 3 4\t1 2 3 4", "copy"),
        ],
    )
    def test_reason(self, pair: str, reason: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = replace(tsv(tmp_path / "a.tsv", pair + "\n"), max_tokens=20, max_length_ratio=2.0)
        assert self.reasons(config, tokenizer) == {"read": 1, reason: 1}

    @pytest.mark.parametrize(
        ("num_source", "num_target", "reason"),
        [
            (20, 20, None),
            (20, 21, "too_long"),
            (3, 10, None),  # twice as many and four
            (3, 11, "length_ratio"),
            (11, 3, "length_ratio"),
            (0, 1, "empty"),
        ],
    )
    def test_limits_are_inclusive(self, num_source: int, num_target: int, reason: str | None) -> None:
        config = CorpusConfig(name="test", tsv="a.tsv", max_tokens=20, max_length_ratio=2.0)
        assert unfit("a", "b", num_source, num_target, config) == reason

    def test_a_short_copy_may_be_a_name(self) -> None:
        config = CorpusConfig(name="test", tsv="a.tsv")
        assert [unfit("Oslo", "Oslo", count, count, config) for count in (3, 4)] == [None, "copy"]
        assert unfit("Oslo", "Oslo", 4, 4, replace(config, drop_copies=False)) is None

    def test_duplicates(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = tsv(tmp_path / "a.tsv", "1\tun\n2\tdeux\n1\tun\n")
        assert self.reasons(config, tokenizer) == {"read": 3, "kept": 2, "duplicate": 1}
        assert self.reasons(replace(config, drop_duplicates=False), tokenizer) == {"read": 3, "kept": 3}

    def test_first_pairs_only(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = replace(tsv(tmp_path / "a.tsv", "1\tun\n\tx\n2\tdeux\n3\ttrois\n"), max_pairs=2)
        assert self.reasons(config, tokenizer) == {"read": 3, "kept": 2, "empty": 1}


class TestStore:
    def test_holds_the_pairs_in_order(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        store = prepare(tsv(tmp_path / "a.tsv", "1 2\tun deux\n3\ttrois\n"), tokenizer, tmp_path / "store")
        assert len(store) == 2
        assert tokenizer.decode([store.source(0).tolist(), store.target(1).tolist()]) == ["1 2", "trois"]
        assert store.lengths.tolist() == [[len(store.source(i)), len(store.target(i))] for i in range(2)]

    def test_is_made_once_and_anew_when_stale(
        self, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tsv(tmp_path / "a.tsv", "1 2\tun deux\n3\ttrois\n")
        prepare(config, tokenizer, tmp_path / "store")
        made = (tmp_path / "store" / "tokens.npy").stat().st_mtime_ns
        prepare(config, tokenizer, tmp_path / "store")
        assert (tmp_path / "store" / "tokens.npy").stat().st_mtime_ns == made
        assert "changed" not in capsys.readouterr().out
        assert len(prepare(replace(config, max_pairs=1), tokenizer, tmp_path / "store")) == 1
        assert "corpus test: its files, its rules or the vocabulary have changed" in capsys.readouterr().out

    def test_every_rule_of_cleaning_is_part_of_what_it_is(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = tsv(tmp_path / "a.tsv", "1 2\tun deux\n")
        rules: list[dict[str, Any]] = [
            {"max_tokens": 7},
            {"max_length_ratio": 7.0},
            {"drop_copies": not config.drop_copies},
            {"drop_duplicates": not config.drop_duplicates},
            {"max_pairs": 7},
            {"source_script": "latin"},
            {"target_script": "latin"},
        ]
        found = [fingerprint(replace(config, **rule), tokenizer) for rule in [{}, {}, *rules]]
        assert found[0] == found[1]
        assert len(set(found)) == 1 + len(rules)

    @pytest.mark.parametrize("report", ["", "{", "[]", '{"fingerprint": 1}'])
    def test_interrupted_preparation_is_made_again(self, report: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = tsv(tmp_path / "a.tsv", "1 2\tun deux\n")
        prepare(config, tokenizer, tmp_path / "store")
        (tmp_path / "store" / "report.json").write_text(report)
        (tmp_path / "store" / "tokens.npy").write_bytes(b"")
        assert len(prepare(config, tokenizer, tmp_path / "store")) == 1

    @pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "lengths.npy"])
    @pytest.mark.parametrize("damage", ["absent", "empty", "cut", "shorter"])
    def test_a_damaged_store_is_made_again(self, name: str, damage: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
        config = tsv(tmp_path / "a.tsv", "1 2\tun deux\n3\ttrois\n")
        folder, path = tmp_path / "store", tmp_path / "store" / name
        prepare(config, tokenizer, folder)
        content, array = path.read_bytes(), np.load(path)
        path.unlink()
        if damage in ("empty", "cut"):
            path.write_bytes(content[:-1] if damage == "cut" else b"")
        elif damage == "shorter":
            np.save(path, array[:-1])
        store = prepare(config, tokenizer, folder)
        assert tokenizer.decode([store.target(i).tolist() for i in range(len(store))]) == ["un deux", "trois"]
        assert path.read_bytes() == content

    def test_nothing_fit(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match=r"no pair is fit for training: \{'read': 1, 'kept': 0, 'empty': 1\}"):
            prepare(tsv(tmp_path / "a.tsv", "\tun\n"), tokenizer, tmp_path / "store")

    def test_no_file(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match="corpus 'test': there is no file"):
            prepare(CorpusConfig(name="test", tsv=str(tmp_path / "none")), tokenizer, tmp_path / "store")

    def test_is_memory_mapped(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        prepare(tsv(tmp_path / "a.tsv", "1 2\tun deux\n"), tokenizer, tmp_path / "store")
        assert isinstance(TokenStore(tmp_path / "store").tokens, np.memmap)

    def test_raw_array_is_a_numpy_file(self, tmp_path: Path) -> None:
        with RawArray(tmp_path / "a.npy", np.dtype("<i4"), columns=2) as array:
            array.append(np.array([1, 2], "<i4"))
            array.append(np.array([3, 4, 5, 6], "<i4"))
        assert np.load(tmp_path / "a.npy").tolist() == [[1, 2], [3, 4], [5, 6]]


def test_pairs_in_another_script_are_dropped_and_named_by_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pairs = ["7 0\tsept zero", "1 2\tодин два", "9\t", "3 a\ttrois a", "7 0\tsept zero", "4 5\tquatre и"]
    (tmp_path / "mixed.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    config = CorpusConfig(
        name="mixed", tsv=str(tmp_path / "mixed.tsv"), source_script="latin", target_script="latin", max_length_ratio=50
    )
    store = prepare(config, tokenizer, tmp_path / "store")
    dropped = (tmp_path / "store" / "dropped.tsv").read_text()
    assert dropped == "2\twrong_script\n3\tempty\n5\tduplicate\n"
    kept = tokenizer.decode([store.target(i).tolist() for i in range(len(store))])
    assert kept == ["sept zero", "trois a", "quatre и"], "the order of the pairs is that of the file"


def test_several_scripts_are_one_wish() -> None:
    assert is_in_script("東京タワーです", "cjk hiragana katakana")
    assert not is_in_script("東京タワーです", "hiragana")
    assert is_in_script("Montréal", "Latin")
    assert is_in_script("12:30 !", "greek"), "text without letters has no script"


def test_a_sample_takes_each_pair_with_the_same_chance() -> None:
    pairs = [(str(number), "") for number in range(8)]
    rng, chosen = random.Random(1), Counter[str]()
    for _ in range(4000):
        sample, number = reservoir(iter(pairs), 3, rng)
        assert (len(set(sample)), number) == (3, 8)
        chosen.update(source for source, _ in sample)
    assert [chosen[source] / 4000 for source, _ in pairs] == [pytest.approx(3 / 8, abs=0.04)] * 8
    for size in (8, 9):
        assert reservoir(iter(pairs), size, rng) == (pairs, 8)


def test_a_disk_without_room_is_named(
    corpus: CorpusConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error of a write says nothing of a file."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RawArray, "append", fail)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'store'}'"):
            prepare(corpus, tokenizer, tmp_path / "store")
    assert len(prepare(corpus, tokenizer, tmp_path / "store")) > 0
