"""An imported checkpoint of every shape translates as Hugging Face Transformers does with the same folder."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from service.cli import main
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from tests.conftest import sentences
from tests.unit.export.huggingface.conftest import edit_json

transformers = pytest.importorskip(
    "transformers", reason="compares with Hugging Face Transformers, which the extra 'peers' installs"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]
Make = Callable[..., Path]
MAX_LENGTH = 18  # start token counted
TEXTS = [*sentences(4), "\xe9 \U0001f600 the\u200bmill", "x"]


def rewrite(folder: Path, is_safe: bool, bias: bool, config: dict[str, Any], generation: dict[str, Any]) -> None:
    """The folder's model anew, by Transformers itself, with random weights of another shape."""
    torch.manual_seed(5)
    old = transformers.AutoConfig.from_pretrained(folder)
    values = {**old.to_dict(), "init_std": 0.3, **config}
    model = transformers.MarianMTModel(transformers.MarianConfig(**values))
    if bias:
        model.final_logits_bias.normal_()
    shared = {"decoder_start_token_id": old.pad_token_id, "pad_token_id": old.pad_token_id}
    shared |= {"eos_token_id": old.eos_token_id, "max_length": MAX_LENGTH}
    model.generation_config = transformers.GenerationConfig(**(shared | generation))
    model.save_pretrained(folder)
    if not is_safe:
        torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()


def compare(folder: Path, bundle: Path, codes: tuple[str, str], several_beams: tuple[int, ...] = (1, 4)) -> None:
    """Tokens of the source, ids, text and score of every translation are those of Transformers."""
    from benchmarks.transformers_folder import TransformersFolder

    theirs = TransformersFolder(folder, *codes)
    translator = Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))
    try:
        for beams in several_beams:
            results = translator.translate(TEXTS, DecodeOptions(num_beams=beams), codes)
            for text, result in zip(TEXTS, results, strict=True):
                [right] = theirs.generate([theirs.encode(text)], beams)
                assert list(result.alternatives[0].token_ids) == right.ids
                # A language's token, which is none of the pieces, is shown by M2M100Tokenizer as it is. An id that no
                # piece has, where the model has more ids than its vocabulary, fails in MarianTokenizer.
                if max(right.ids) < len(theirs.tokenizer):
                    assert result.text == re.sub("__[a-z]{2,3}__", "", theirs.decode(right.ids)).strip()
                if beams > 1:
                    assert result.score == pytest.approx(right.score, abs=1e-4)
                if not translator.manifest.decoding.no_repeat_ngram_size:
                    assert result.score == pytest.approx(theirs.score(theirs.encode(text), right.ids), abs=1e-4)
    finally:
        translator.close()


def imported(folder: Path, bundle: Path) -> Path:
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    return bundle


PAD = "the padding token"
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deep and shallow, swish, bias": ({"activation_function": "swish", "encoder_layers": 4, "decoder_layers": 1}, {}),
    "wide heads, relu": ({"activation_function": "relu", "d_model": 128}, {}),
    "bad words, rescaled": ({}, {"bad_words_ids": PAD, "renormalize_logits": True, "forced_eos_token_id": 2}),
    "bad words, as they are": ({}, {"bad_words_ids": PAD, "early_stopping": True, "num_beams": 4}),
    "a large odd vocabulary, bias": ({"vocab_size": 4099}, {"bad_words_ids": PAD, "renormalize_logits": True}),
    "nothing twice, not before ten": ({}, {"bad_words_ids": PAD, "no_repeat_ngram_size": 2, "min_length": 11}),
}
WIDTH = {"d_model": 1024, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "init_std": 0.05}
SHAPES["big"] = (WIDTH | {"encoder_attention_heads": 16, "decoder_attention_heads": 16}, {"num_beams": 4})


@pytest.mark.parametrize("name", SHAPES)
def test_marian(name: str, make_folder: Make, tmp_path: Path) -> None:
    config, generation = SHAPES[name]
    folder = make_folder()
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    generation = {key: [[pad]] if value == PAD else value for key, value in generation.items()}
    size = {"decoder_vocab_size": config["vocab_size"]} if "vocab_size" in config else {}
    rewrite(folder, "bad" in name, "bias" in name, config | size, generation)
    bundle = imported(folder, tmp_path / "bundle")
    compare(folder, bundle, ("en", "de"))
    compare(folder, bundle, ("en", "fr"), (4, 6))


def test_marian_with_a_vocabulary_for_each_side(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder(several=False)
    ids = json.loads((folder / "vocab.json").read_text())
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    # The target has the same pieces at other places, but for the special ones; the source some more.
    shared = {piece: i for piece, i in ids.items() if i <= max(pad, 3)}
    others = [piece for piece in ids if piece not in shared]
    target = shared | {piece: len(shared) + i for i, piece in enumerate(reversed(others))}
    source = ids | {f"<extra {i}>": len(ids) + i for i in range(5)}
    (folder / "vocab.json").write_text(json.dumps(source))
    (folder / "target_vocab.json").write_text(json.dumps(target))
    edit_json(folder / "tokenizer_config.json", separate_vocabs=True)
    sizes = {"vocab_size": len(source), "decoder_vocab_size": len(target)}
    separate = {"share_encoder_decoder_embeddings": False}
    rewrite(folder, True, True, sizes | separate, {"bad_words_ids": [[pad]], "num_beams": 6})
    compare(folder, imported(folder, tmp_path / "bundle"), ("en", "fr"))


def write_m2m100(folder: Path, vocab_size: int, specials: tuple[int, int], **generation: Any) -> None:
    """A random model; specials: pad and eos."""
    torch.manual_seed(6)
    shape = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 96, "init_std": 0.15}
    shape |= {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    shape |= {f"{side}_ffn_dim": 128 for side in ("encoder", "decoder")}
    shape |= {"vocab_size": vocab_size, "pad_token_id": specials[0], "eos_token_id": specials[1]}
    shape |= {"decoder_start_token_id": specials[1]}
    model = transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**shape))
    ids = {key: shape[key] for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    model.generation_config = transformers.GenerationConfig(max_length=MAX_LENGTH, **ids, **generation)
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    "generation", [{}, {"early_stopping": True, "num_beams": 5, "no_repeat_ngram_size": 2, "min_new_tokens": 8}]
)
def test_m2m100_is_told_both_languages(generation: dict[str, Any], make_folder: Make, tmp_path: Path) -> None:
    folder = tmp_path / "m2m100"
    marian = make_folder(several=False)
    ids = json.loads((marian / "vocab.json").read_text())
    folder.mkdir()
    shutil.copy(marian / "source.spm", folder / "sentencepiece.bpe.model")
    (folder / "vocab.json").write_text(json.dumps(ids))
    old = json.loads((marian / "config.json").read_text())
    names = {
        f"{kind}_token": next(p for p, i in ids.items() if i == old[f"{kind}_token_id"]) for kind in ("pad", "eos")
    }
    settings = {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en", "unk_token": "<unk>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_m2m100(folder, len(ids) + 108, (old["pad_token_id"], old["eos_token_id"]), **generation)
    bundle = imported(folder, tmp_path / "bundle")
    compare(folder, bundle, ("en", "fr"), (1, 4, 5))
    compare(folder, bundle, ("de", "ja"))


def test_nllb_200(tmp_path: Path) -> None:
    """A BPE vocabulary, shifted by one, 202 languages such as fra_Latn behind it; as NllbTokenizer saves it."""
    folder, text = tmp_path / "nllb", tmp_path / "text"
    folder.mkdir()
    text.write_text("\n".join(sentences(400)) + "\n\xe9 \U0001f600\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "spm"), vocab_size=150, model_type="bpe", minloglevel=2
    )
    shutil.copy(tmp_path / "spm.model", folder / "sentencepiece.bpe.model")
    codes = transformers.models.nllb.tokenization_nllb.FAIRSEQ_LANGUAGE_CODES
    tokenizer = transformers.NllbTokenizer.from_pretrained(folder, additional_special_tokens=codes)
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists()
    write_m2m100(folder, len(tokenizer) + 2, (1, 2))
    bundle = imported(folder, tmp_path / "bundle")
    compare(folder, bundle, ("en", "fr"), (1, 4, 5))
    compare(folder, bundle, ("zh-Hant", "ary"))
