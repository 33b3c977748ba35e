"""A small model with random weights, and its bundle: enough to check that two ways of computing agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.write_bundle import ExportOptions, write_bundle
from model.checkpoint import Description
from model.config import CorpusConfig, ModelConfig, VocabularyConfig
from model.transformer import Transformer
from model.vocabulary import learn_vocabulary
from service.runtime.tokenizer import Tokenizer

VOCAB_SIZE, END = 318, 2
SOURCE = (
    "the red house stands beside the river and the old mill turns slowly in the morning wind while we wait for rain"
)


def sentences(count: int, seed: int = 3) -> list[str]:
    """Nonsense of very different lengths, from two to twenty-odd words."""
    words = SOURCE.split()
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 10**6, (count, 24), generator=generator).tolist()
    return [" ".join(words[n % len(words)] for n in row[: 2 + row[0] % 22]) for row in numbers]


def random_model(factor: float = 4.0, **changes: object) -> Transformer:
    """A model that ends its sentences now and then: its end token is as likely as the best of the others.

    Args:
        factor: how much larger than usual matrices are. The larger, the more becomes of what is rounded.
    """
    torch.manual_seed(11)
    shape = {
        "vocab_size": VOCAB_SIZE,
        "model_width": 32,
        "num_heads": 2,
        "feed_forward_width": 64,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "dropout": 0.0,
        "max_positions": 96,
        "output_bias": True,
    }
    model = Transformer(ModelConfig(**(shape | changes)))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" not in name:
                parameter.mul_(factor) if parameter.dim() == 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
        model.target_embedding.weight[END] = 0.0
        if model.output_bias is not None:
            model.output_bias.zero_()[END] = 2.75
    return model.eval()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long tests/soak takes."""
    parser.addoption("--soak-s", default="60", help="seconds that tests/soak takes (default: 60)")


@pytest.fixture(scope="session")
def nonsense_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("text") / "pairs.tsv"
    path.write_text("".join(f"{text}\t{text[::-1]}\n" for text in sentences(400)))
    corpus = CorpusConfig(name="nonsense", tsv=str(path))
    return learn_vocabulary([corpus], VocabularyConfig(size=VOCAB_SIZE), seed=1)


@pytest.fixture(scope="session")
def random_transformer() -> Transformer:
    return random_model()


@pytest.fixture(scope="session")
def make_bundle(nonsense_tokenizer: Tokenizer) -> Callable[..., Path]:
    def make(model: Transformer, folder: Path, **options: object) -> Path:
        chosen = {"name": "nonsense", "version": "1", "max_source_tokens": 64, "max_target_tokens": 24} | options
        description = Description(model.config, "en", str(chosen.pop("target_language", "fr")), 0)
        write_bundle(model, nonsense_tokenizer, description, folder, ExportOptions(**chosen))  # type: ignore[arg-type]
        return folder

    return make


@pytest.fixture(scope="session")
def nonsense_bundle(
    random_transformer: Transformer, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_bundle(random_transformer, tmp_path_factory.mktemp("bundle") / "nonsense")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # such small products gain nothing from more, and lose much on a busy machine
