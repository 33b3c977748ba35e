"""A folder is imported as what it says, or refused with the name of what cannot be honoured. Without Transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from export.align import align, chosen_languages
from export.chain import nodes_of
from export.huggingface.folder import ImportRefused
from export.huggingface.importer import read_checkpoint
from export.huggingface.language_codes import bcp47, bcp47_of_all
from model.reference_decode import constrained, extend_with, search_beams, search_greedily, with_penalties
from service.cli import main
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import InvalidRequest
from service.runtime.bundle import Bundle
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model, sentences
from tests.unit.export.huggingface.conftest import POST_NORM, edit_json

Make = Callable[..., Path]


def test_what_was_written_is_read(make_folder: Make, nonsense_tokenizer: Tokenizer) -> None:
    written = random_model(**POST_NORM, activation="silu")
    read = read_checkpoint(make_folder(several=False, activation="silu"), [], [])
    source = torch.tensor([[5, 270, 300, nonsense_tokenizer.end]])
    target = torch.tensor([[nonsense_tokenizer.pad, 280, 290]])
    wanted, found = (m(source, torch.tensor([4]), target).log_softmax(-1) for m in (written, read.model))
    assert torch.isneginf(found[..., nonsense_tokenizer.pad]).all()
    others = [i for i in range(written.config.vocab_size) if i != nonsense_tokenizer.pad]
    # What a banned token gives up goes to the others.
    assert torch.allclose(found[..., others], wanted[..., others].log_softmax(-1), atol=1e-5)
    assert [language.code for language in read.sources + read.targets] == ["en", "fr"]
    assert read.decoding.max_length == 40
    assert read.decoding.force_end
    assert read.proposed == {"num_beams": 6, "length_penalty": 1.0}
    assert read.tokenizer.start == nonsense_tokenizer.pad
    for text in [*sentences(5), "", "é </s> 😀\u200b"]:
        assert read.tokenizer.encode([text]) == nonsense_tokenizer.encode([text])
        [ids] = read.tokenizer.encode([text])
        assert read.tokenizer.decode([ids]) == nonsense_tokenizer.decode([ids])


def test_command_makes_a_bundle_of_several_targets_that_decodes_as_the_oracle(
    make_folder: Make, tmp_path: Path
) -> None:
    """Greedy and beam search: target token before the source, pad never, the end forced at the limit."""
    folder, bundle = make_folder(num_heads=4), tmp_path / "bundle"
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    checkpoint = read_checkpoint(folder, [], [])
    translator = Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))
    try:
        assert translator.info.targets == ("fr", "de")
        texts = sentences(6)
        for target in checkpoint.targets:
            for beams in (1, 4):
                options = DecodeOptions(num_beams=beams, max_length=9)
                results = translator.translate(texts, options, ("en", target.code))
                for text, result in zip(texts, results, strict=True):
                    [ids] = checkpoint.tokenizer.encode([text])
                    end = checkpoint.tokenizer.end
                    extend = extend_with(checkpoint.model, [*target.prefix, *ids, end], checkpoint.tokenizer.start)
                    extend = constrained(extend, last=end, max_length=9)
                    right = search_greedily(extend, end, 9) if beams == 1 else search_beams(extend, end, 9, beams)[0]
                    assert list(result.alternatives[0].token_ids) == right.ids
                    assert result.score == pytest.approx(right.score, abs=1e-4)
                    assert right.ids[-1] == end
        with pytest.raises(InvalidRequest, match="none of this model's languages: fr, de"):
            translator.translate(texts)
    finally:
        translator.close()
    assert main(["translate", "--bundle", str(bundle), "--to", "de-AT", "the red house"]) == 0
    assert main(["translate", "--bundle", str(bundle), "--to", "it", "the red house"]) == 78
    assert main(["verify", str(bundle)]) == 0


def test_graphs_for_cuda_are_made_of_a_folder(make_folder: Make, tmp_path: Path) -> None:
    folder, bundle = make_folder(num_heads=4, factor=3.0), tmp_path / "bundle"
    precisions = [word for name in ("cpu-int8", "cuda-fp16") for word in ("--precision", name)]
    assert main(["import-marian", str(folder), str(bundle), *precisions]) == 0
    graphs = Bundle.open(bundle).graphs("cuda-fp16")
    assert {"cuda-fp16/encoder.onnx", "cuda-fp16/move.onnx", "cuda-fp16/store.onnx"} <= graphs.files
    assert main(["verify", str(bundle)]) == 0


def test_alignment_of_an_imported_model(make_folder: Make, tmp_path: Path) -> None:
    """In each of its languages it is that of the engine's own translation."""
    folder, bundle = make_folder(num_heads=4), tmp_path / "bundle"
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    opened, [text] = Bundle.open(bundle), sentences(1)
    for target in opened.manifest.target_languages:
        languages = chosen_languages(opened.manifest, None, target.code.upper())
        found = align(opened, text, None, None, languages)
        translator = Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))
        [made] = translator.translate([text], DecodeOptions(num_beams=1), ("en", target.code))
        translator.close()
        assert (found.source, found.target) == (tuple(text.split()), tuple(made.text.split()))
        assert (found.weights.sum(axis=1) <= 1.0001).all()
        assert found.weights.sum(axis=1).min() > 0
    assert main(["align", str(bundle), text, "--to", "it"]) == 1


def test_bad_words_without_rescaling_keep_their_probability(make_folder: Make) -> None:
    folder = make_folder()
    edit_json(folder / "generation_config.json", renormalize_logits=False, early_stopping=True)
    read = read_checkpoint(folder, [], ["de"])
    assert read.decoding.banned == (read.tokenizer.pad,)
    assert read.decoding.stop_at_beams
    assert [language.code for language in read.targets] == ["de"]


def test_a_bin_is_read_without_running_code(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ImportRefused, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        read_checkpoint(folder, [], [])
    torch.save(tensors, folder / "pytorch_model.bin")
    read_checkpoint(folder, [], [])

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save(tensors | {"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ImportRefused, match="more than plain tensors"):
        read_checkpoint(folder, [], [])
    assert not (tmp_path / "ran").exists()


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def set_config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def add_tokens(file: str, values: dict[str, object]) -> Callable[[Path], None]:
    """As Transformers' add_tokens() leaves them."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))

    return change


def set_generation(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "generation_config.json", **changes)


def set_tensor(name: str, make: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        value = make(tensors.pop(name, torch.zeros(1)))
        save_file(tensors | ({} if value is None else {name: value}), folder / "model.safetensors")

    return change


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def as_lfs_pointer(name: str) -> Callable[[Path], None]:
    content = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300000000\n"
    return lambda folder: (folder / name).write_bytes(content)


FC1 = "model.encoder.layers.0.fc1.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("config.json"), r"config\.json is missing"),
        (drop("source.spm"), r"source\.spm is missing"),
        (drop("vocab.json"), r"vocab\.json is missing"),
        (truncate("model.safetensors"), r"model\.safetensors is damaged"),
        (truncate("config.json"), r"config\.json is not JSON"),
        (as_lfs_pointer("model.safetensors"), r"model\.safetensors is only Git LFS's pointer"),
        (as_lfs_pointer("source.spm"), r"source\.spm is only Git LFS's pointer"),
        (as_lfs_pointer("vocab.json"), r"vocab\.json is only Git LFS's pointer"),
        (set_config(model_type="__gone__"), r"config\.json has no model_type$"),
        (lambda folder: (folder / "target.spm").write_bytes(b"x"), r"target\.spm is no SentencePiece model"),
        (set_config(model_type="t5"), r"model_type \('t5'\)"),
        (set_config(architectures=["MarianModel"]), "architectures"),
        (set_config(activation_function="gelu_new"), r"activation_function \('gelu_new'\)"),
        (set_config(normalize_embedding=True), "normalize_embedding"),
        (set_config(normalize_before=True), "normalize_before"),
        (set_config(rope_theta=10000), "'rope_theta'"),
        (set_config(decoder_attention_heads=1), "decoder_attention_heads"),
        (set_config(tie_word_embeddings=False), "tie_word_embeddings"),
        (set_config(d_model=30), "d_model|model_width|has shape"),
        (set_config(vocab_size=400), r"decoder_vocab_size"),
        (set_config(encoder_layers=3), r"no model\.encoder\.layers\.2\."),
        (set_config(encoder_layers=1), r"hold model\.encoder\.layers\.1\."),
        (set_config(encoder_layers="6"), r"encoder_layers \('6'\)"),
        (set_config(eos_token_id=7), "eos_token"),
        (set_config(pad_token_id=100_000), "pad_token_id"),
        (set_config(num_hidden_layers=5), "num_hidden_layers"),
        (set_generation(no_repeat_ngram_size=3), "no_repeat_ngram_size"),
        (set_generation(repetition_penalty=1.2), "repetition_penalty"),
        (set_generation(do_sample=True), "do_sample"),
        (set_generation(early_stopping="never"), "early_stopping"),
        (set_generation(bad_words_ids=[[1, 5]]), "bad_words_ids"),
        (set_generation(bad_words_ids=[[100_000]]), "bad_words_ids"),
        (set_generation(forced_eos_token_id=9), "forced_eos_token_id"),
        (set_generation(something_new=1), "'something_new'"),
        (set_generation(max_time=3), "max_time .3. must be null"),
        (add_tokens("added_tokens.json", {"<ent>": 903}), "added to the tokenizer are not implemented: '<ent>'"),
        (add_tokens("tokenizer_config.json", {"added_tokens_decoder": {"903": {"content": "<ent>"}}}), "'<ent>'"),
        (set_tensor(FC1, lambda tensor: None), rf"no {FC1}"),
        (set_tensor(FC1, lambda tensor: tensor.T.contiguous()), rf"{FC1} has shape"),
        (set_tensor(FC1, lambda tensor: tensor * float("nan")), rf"{FC1} holds numbers that are not finite"),
        (set_tensor(FC1, lambda tensor: tensor.to(torch.int8)), rf"{FC1} holds torch.int8"),
        (set_tensor("lm_head.weight", lambda tensor: torch.zeros(318, 32)), "lm_head.weight is not the embedding"),
        (set_tensor("model.extra.weight", lambda tensor: tensor), r"hold model\.extra\.weight"),
        (set_tensor("model.encoder.embed_positions.weight", lambda tensor: tensor + 1), "embed_positions"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    damage: Callable[[Path], None], message: str, make_folder: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder()
    read_checkpoint(folder, [], [])
    damage(folder)
    with pytest.raises(ImportRefused, match=message):
        read_checkpoint(folder, [], [])
    assert main(["import-marian", str(folder), str(folder.parent / "bundle")]) == 78
    assert "import" not in capsys.readouterr().out
    assert not (folder.parent / "bundle").exists()


def test_the_start_and_the_limit_are_those_of_generate(make_folder: Make, nonsense_tokenizer: Tokenizer) -> None:
    folder = make_folder()
    edit_json(folder / "generation_config.json", decoder_start_token_id="__gone__", bos_token_id=7, max_new_tokens=33)
    read = read_checkpoint(folder, [], [])
    assert read.tokenizer.start == 7
    assert read.decoding.max_length == 33
    edit_json(folder / "generation_config.json", bos_token_id="__gone__", max_new_tokens=None)
    read = read_checkpoint(folder, [], [])
    assert read.tokenizer.start == nonsense_tokenizer.pad
    assert read.decoding.max_length == 40


def test_special_tokens_and_languages_may_stand_among_the_added(make_folder: Make) -> None:
    folder = make_folder()
    added = {
        "0": {"content": "</s>"},
        "1": {"content": "<unk>"},
        "2": {"content": "<pad>"},
        "9": {"content": ">>fra<<"},
    }
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder=added)
    assert {language.code for language in read_checkpoint(folder, [], []).targets} == {"fr", "de"}


def test_a_tokenizer_with_code_of_its_own_is_refused(make_folder: Make) -> None:
    """Its other files may be those of a known one."""
    folder = make_folder()
    for settings, message in (
        ({"tokenizer_class": "SMALL100Tokenizer"}, r"tokenizer_class \('SMALL100Tokenizer'\) is not implemented"),
        ({"tokenizer_class": "MarianTokenizer", "auto_map": {"AutoTokenizer": ["x.X", None]}}, "auto_map"),
    ):
        edit_json(folder / "tokenizer_config.json", **settings)
        with pytest.raises(ImportRefused, match=message):
            read_checkpoint(folder, [], [])
    edit_json(folder / "tokenizer_config.json", auto_map="__gone__")
    read_checkpoint(folder, [], [])
    (folder / "tokenization_small100.py").write_text("")
    with pytest.raises(ImportRefused, match=r"a tokenizer of its own \(tokenization_small100\.py\)"):
        read_checkpoint(folder, [], [])


def test_languages_are_named_or_asked_for(make_folder: Make) -> None:
    folder = make_folder(several=False)
    edit_json(folder / "tokenizer_config.json", source_lang="ROMANCE")
    with pytest.raises(ImportRefused, match="source_lang .*--source-language"):
        read_checkpoint(folder, [], [])
    read = read_checkpoint(folder, ["fr", "es"], ["en"])
    assert [language.code for language in read.sources] == ["fr", "es"]
    assert read.has_choice == (True, False)
    with pytest.raises(ImportRefused, match="one target only"):
        read_checkpoint(folder, ["fr"], ["en", "de"])
    with pytest.raises(ImportRefused, match="--target-language it: the checkpoint has de, fr"):
        read_checkpoint(make_folder(), [], ["it"])


def test_language_codes() -> None:
    assert [bcp47(c) for c in ("fra", "fr", "pt_br", "cmn_Hans", "ast", "ROMANCE", "")] == [
        *("fr", "fr", "pt-BR", "zh-Hans", "ast", "", "")
    ]
    codes = ["fra_Latn", "zho_Hans", "zho_Hant", "arb_Arab", "ary_Arab", "xx yy"]
    assert bcp47_of_all(codes) == {
        **{"fra_Latn": "fr", "zho_Hans": "zh-Hans", "zho_Hant": "zh-Hant", "arb_Arab": "ar", "ary_Arab": "ary"}
    }
    assert bcp47_of_all(["cmn", "zho"]) == {"cmn": "zh", "zho": "zho"}


def test_every_key_has_one_fate() -> None:
    from export.huggingface import config, generation

    for fates in (
        (config.USED, config.FIXED.keys(), config.IRRELEVANT),
        (generation.USED, generation.NEUTRAL.keys(), generation.IRRELEVANT),
    ):
        assert len(set().union(*fates)) == sum(map(len, fates))


def test_ngrams_and_least_lengths_of_the_folder_are_what_a_request_does_not_say(
    make_folder: Make, tmp_path: Path
) -> None:
    folder, bundle = make_folder(num_heads=4), tmp_path / "bundle"
    keys = {"renormalize_logits": False, "no_repeat_ngram_size": 2, "min_length": 5}
    edit_json(folder / "generation_config.json", **keys)
    text = tmp_path / "sample.txt"
    text.write_text("\n".join(sentences(8)))
    command = ["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32", "--calibration", str(text)]
    assert main([*command, "--lower-capitals"]) == 0
    decoding = Bundle.open(bundle).manifest.decoding
    assert (decoding.lowers_capitals, decoding.plain_quotes, decoding.min_length) == (True, False, 4)
    checkpoint = read_checkpoint(folder, [], ["fr"])
    [prefix] = checkpoint.targets[0].prefix
    end, size = checkpoint.tokenizer.end, checkpoint.tokenizer.vocab_size
    translator = Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))
    try:
        assert (translator.manifest.decoding.no_repeat_ngram_size, translator.manifest.decoding.min_length) == (2, 4)
        for wanted, ngram, least in ((DecodeOptions(num_beams=1), 2, 4), (DecodeOptions(4, min_length=6), 2, 6)):
            for words, result in zip(
                sentences(4), translator.translate(sentences(4), wanted, ("en", "fr")), strict=True
            ):
                source = [prefix, *checkpoint.tokenizer.encode([words])[0], end]
                extend = extend_with(checkpoint.model, source, checkpoint.tokenizer.start)
                extend = with_penalties(extend, end, size, ngram, 1.0, least)
                extend = constrained(extend, banned=checkpoint.decoding.banned, last=end, max_length=40)
                greedy = wanted.num_beams == 1
                right = search_greedily(extend, end, 40) if greedy else search_beams(extend, end, 40, 4)[0]
                assert list(result.alternatives[0].token_ids) == right.ids
    finally:
        translator.close()
    for key, value, message in (
        ("no_repeat_ngram_size", 1, r"no_repeat_ngram_size \(1\)"),
        ("bad_words_ids", [], "decoder_start_token_id is the end token"),
        ("renormalize_logits", True, "no_repeat_ngram_size .* renormalize_logits"),
    ):
        edit_json(folder / "generation_config.json", **(keys | {"bad_words_ids": [[1]], key: value}))
        with pytest.raises(ImportRefused, match=message):
            read_checkpoint(folder, [], [])


def test_without_text_scales_are_fixed_on_texts_of_the_vocabulary(
    make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scale for each row is made of ReduceMax, in every product; the graphs have none left."""
    folder, bundle = make_folder(several=False, activation="silu"), tmp_path / "bundle"
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-int8"]) == 0
    opened = Bundle.open(bundle)
    graphs = opened.graphs("cpu-int8")
    for name in (graphs.encoder, graphs.score, graphs.decoder[1]):
        kinds = {node.op_type for node in nodes_of(onnx.load(str(opened.path(name)), load_external_data=False))}
        assert {"Round", "Product"} <= kinds
        assert "ReduceMax" not in kinds, name
    assert not opened.manifest.golden
    assert "no --calibration: int8 scales are fixed on 128 texts" in capsys.readouterr().err
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    assert capsys.readouterr().err == "", "float32 has no scales"


def test_separate_vocabularies(make_folder: Make, nonsense_tokenizer: Tokenizer) -> None:
    folder = make_folder(several=False, tie_embeddings=False)
    ids = json.loads((folder / "vocab.json").read_text())
    source = {piece: i for piece, i in ids.items() if i < len(ids) - 3}
    (folder / "vocab.json").write_text(json.dumps(source))
    (folder / "target_vocab.json").write_text(json.dumps(ids))
    edit_json(folder / "tokenizer_config.json", separate_vocabs=True)
    edit_json(folder / "config.json", vocab_size=len(source), decoder_vocab_size=len(ids))
    name = "model.encoder.embed_tokens.weight"
    set_tensor(name, lambda tensor: tensor[: len(source)].clone())(folder)
    read = read_checkpoint(folder, [], [])
    assert read.model.config.source_vocab_size == len(source)
    assert read.tokenizer.vocab_size == len(ids)
    missing = next(piece for piece, i in ids.items() if i == len(ids) - 1)
    assert read.tokenizer.ids.get(missing) is None
    edit_json(folder / "tokenizer_config.json", separate_vocabs=False)
    with pytest.raises(ImportRefused, match="two vocabularies"):
        read_checkpoint(folder, [], [])
