"""An imported checkpoint of every shape translates as Hugging Face Transformers does with the same folder."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.huggingface.importer import read_checkpoint
from service.cli import main
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from tests.conftest import sentences

transformers = pytest.importorskip(
    "transformers", reason="compares with Hugging Face Transformers, which the extra 'peers' installs"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]
Make = Callable[..., Path]
MAX_LENGTH = 18  # start token counted
TEXTS = [*sentences(4), "é 😀 the\u200bmill", "x"]


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


def compare(folder: Path, bundle: Path, beams: int, target: str, before: str, **forced: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    translator = Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))
    try:
        results = translator.translate(TEXTS, DecodeOptions(num_beams=beams), (translator.info.source_language, target))
    finally:
        translator.close()
    for text, result in zip(TEXTS, results, strict=True):
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = tokenizer(before + text, return_tensors="pt").input_ids
            given = {"num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
            found = model.generate(ids, **given, **forced)
        expected = found.sequences[0].tolist()[1:]
        mine = list(result.alternatives[0].token_ids)
        assert mine == expected[: len(mine)]
        assert set(expected[len(mine) :]) <= {model.config.pad_token_id}
        # Saved by Transformers 5, the tokenizer no longer knows that a language is a special token.
        assert result.text == tokenizer.decode(expected, skip_special_tokens=True).replace("__fr__", "").strip()
        if beams > 1:
            assert result.score == pytest.approx(float(found.sequences_scores[0]), abs=1e-4)


PAD = "the padding token"
SHAPES = {
    "deep and shallow, swish, bias": ({"activation_function": "swish", "encoder_layers": 4, "decoder_layers": 1}, {}),
    "wide heads, relu": ({"activation_function": "relu", "d_model": 128}, {}),
    "bad words, rescaled": ({}, {"bad_words_ids": PAD, "renormalize_logits": True, "forced_eos_token_id": 2}),
    "bad words, as they are": ({}, {"bad_words_ids": PAD, "early_stopping": True, "num_beams": 4}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_marian(name: str, make_folder: Make, tmp_path: Path) -> None:
    config, generation = SHAPES[name]
    folder = make_folder()
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    generation = {key: [[pad]] if value == PAD else value for key, value in generation.items()}
    rewrite(folder, "bad" in name, "bias" in name, config, generation)
    assert main(["import-marian", str(folder), str(tmp_path / "bundle"), "--precision", "cpu-fp32"]) == 0
    for beams, target, token in ((1, "de", ">>deu<< "), (4, "fr", ">>fra<< ")):
        compare(folder, tmp_path / "bundle", beams, target, token)


def test_m2m100_is_told_both_languages(make_folder: Make, tmp_path: Path) -> None:
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
    keys = ("d_model", "encoder_layers", "decoder_layers", "pad_token_id", "eos_token_id", "max_position_embeddings")
    keys += tuple(f"{side}_{what}" for side in ("encoder", "decoder") for what in ("attention_heads", "ffn_dim"))
    torch.manual_seed(6)
    shape = {key: old[key] for key in keys} | {"vocab_size": len(ids) + 108, "init_std": 0.3}
    shape |= {"decoder_start_token_id": old["eos_token_id"]}
    model = transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**shape))
    model.generation_config.max_length = MAX_LENGTH
    model.save_pretrained(folder)
    assert main(["import-marian", str(folder), str(tmp_path / "bundle"), "--precision", "cpu-fp32"]) == 0
    checkpoint = read_checkpoint(folder, [], [])
    [first] = next(language.first for language in checkpoint.targets if language.code == "fr")
    for beams in (1, 4):
        compare(folder, tmp_path / "bundle", beams, "fr", "", forced_bos_token_id=first)
