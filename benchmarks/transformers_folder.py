"""A folder in Hugging Face's layout as Transformers itself reads and runs it: what an imported bundle is compared with.

Knows: that library's tokenizers, ``generate``, and its definition of a score. Does not know: bundles.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from export.huggingface.config import read_config
from export.huggingface.folder import HuggingFaceFolder
from export.huggingface.language_codes import bcp47_of_all
from export.huggingface.tokenizer import read_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def language_codes(path: Path) -> list[str]:
    """As the folder's files call them; none where there is nothing to choose."""
    folder = HuggingFaceFolder(path)
    config = read_config(folder)
    return list(read_tokenizer(folder, config, config.start).languages)


class Generated(NamedTuple):
    """Token ids without start token and padding; ``generate``'s own score, nan for greedy search, which has none."""

    ids: list[int]
    score: float


class TransformersFolder:
    """A checkpoint in float32.

    Args:
        source, target: languages by BCP-47; of no importance where the checkpoint has one only.
    """

    def __init__(self, path: Path, source: str = "", target: str = "") -> None:
        known = {ours: code for code, ours in bcp47_of_all(language_codes(path)).items()}
        source, target = known.get(source, ""), known.get(target, "")
        self.model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32).eval()
        self.options = self.model.generation_config
        with warnings.catch_warnings(
            action="ignore", category=UserWarning
        ):  # it would like a package it can do without
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
        self.is_marian = isinstance(self.tokenizer, transformers.MarianTokenizer)
        self.target_token = f">>{target}<<" if target and self.is_marian else ""
        forced = self.options.forced_bos_token_id
        if target and not self.is_marian:
            self.tokenizer.src_lang = source
            is_m2m100 = isinstance(self.tokenizer, transformers.M2M100Tokenizer)
            find = self.tokenizer.get_lang_id if is_m2m100 else self.tokenizer.convert_tokens_to_ids
            forced = find(target)
        self.first: list[int] = [] if forced is None else [forced]

    @property
    def end(self) -> int:
        return int(self.model.config.eos_token_id)

    def encode(self, text: str) -> list[int]:
        """What the encoder reads: language tokens, the text's, the end token. Markers in a text are characters."""
        if self.is_marian and self.target_token:
            ids: list[int] = self.tokenizer(f"{self.target_token} {text}").input_ids
        else:
            ids = self.tokenizer(text, split_special_tokens=True).input_ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def generate(self, sources: Sequence[Sequence[int]], num_beams: int, max_length: int = 0) -> list[Generated]:
        """Translations of sources of one length, so that none has padding.

        Args:
            max_length: target tokens; 0: what the folder says.
        """
        forced: dict[str, Any] = {"forced_bos_token_id": self.first[0]} if self.first else {}
        forced |= {"max_length": max_length + 1} if max_length else {}  # theirs counts the start token
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.model.generate(
                torch.tensor([list(ids) for ids in sources]),
                num_beams=num_beams, do_sample=False, return_dict_in_generate=True, output_scores=True, **forced,
            )  # fmt: skip
        scores = found.sequences_scores.tolist() if num_beams > 1 else [math.nan] * len(sources)
        rows = [self.without_padding(row[1:]) for row in found.sequences.tolist()]
        return [Generated(row, score) for row, score in zip(rows, scores, strict=True)]

    def without_padding(self, ids: list[int]) -> list[int]:
        """Up to the first end token."""
        return ids[: ids.index(self.end) + 1] if self.end in ids else ids

    @torch.inference_mode()
    def score(self, source: Sequence[int], ids: Sequence[int], max_length: int = 0) -> float:
        """The score of given target ids, all of them computed at once, by the definition of beam search.

        Forced tokens cost nothing; with ``renormalize_logits`` bad words give their probability to the others.
        """
        start = self.options.decoder_start_token_id or self.model.config.decoder_start_token_id
        given = {"input_ids": torch.tensor([list(source)]), "decoder_input_ids": torch.tensor([[start, *ids[:-1]]])}
        values = self.model(**given).logits[0].log_softmax(dim=-1)
        if self.options.renormalize_logits:
            banned = [word[0] for word in self.options.bad_words_ids or [] if word[0] != self.end]
            values[:, banned] = -math.inf
            values = values.log_softmax(dim=-1)
        picked = values[torch.arange(len(ids)), torch.tensor(list(ids))]
        picked[: len(self.first)] = 0.0
        limit = max_length or (self.options.max_length or 0) - 1
        if self.options.forced_eos_token_id is not None and len(ids) == limit:
            picked[-1] = 0.0
        penalty = 1.0 if self.options.length_penalty is None else self.options.length_penalty
        return float(picked.sum()) / len(ids) ** penalty
