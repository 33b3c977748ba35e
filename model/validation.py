"""How good a model is while it is being trained: loss on text it has not seen, and some translations.

Knows: validation corpora. Does not know: when it is asked, what is done with the answer.
"""

from collections.abc import Mapping

import sacrebleu
import torch
from torch.utils.tensorboard import SummaryWriter

from model.config import RunConfig
from model.data import SpecialTokens, validation_batches
from model.loss import perplexity
from model.objective import Objective, autocast
from model.reference_decode import batch_greedy
from model.token_store import TokenStore
from service.runtime.tokenizer import Tokenizer

NUM_SHOWN = 3


class Validation:
    """The validation corpora of a run, by name."""

    def __init__(
        self, stores: Mapping[str, TokenStore], tokenizer: Tokenizer, special: SpecialTokens, run: RunConfig
    ) -> None:
        self.stores, self.tokenizer, self.special, self.run = stores, tokenizer, special, run

    @torch.inference_mode()
    def loss(self, objective: Objective, step: int, writer: SummaryWriter) -> float:
        """Mean negative log-likelihood per target token over all corpora; prints it, BLEU and some translations."""
        device = objective.model.positions.device
        objective.eval()
        total, tokens = 0.0, 0
        for name, store in self.stores.items():
            losses = [
                objective.loss(batch.to(device))
                for batch in validation_batches([store], self.special, self.run.batch_tokens)
            ]
            loss = float(sum(loss.negative_log_likelihood for loss in losses))
            count = sum(loss.num_tokens for loss in losses)
            bleu = self.show_translations(objective, store)
            shown = "" if bleu is None else f" BLEU {bleu:.2f}"
            print(
                f"step {step:,} validation {name}: loss {loss / count:.4f} "
                f"perplexity {perplexity(loss / count):.2f}{shown}",
                flush=True,
            )
            writer.add_scalar(f"validation/loss_{name}", loss / count, step)
            writer.add_scalar(f"validation/perplexity_{name}", perplexity(loss / count), step)
            if bleu is not None:
                writer.add_scalar(f"validation/bleu_{name}", bleu, step)
            total, tokens = total + loss, tokens + count
        objective.train()
        return total / tokens

    def show_translations(self, objective: Objective, store: TokenStore) -> float | None:
        """Greedy sacreBLEU over the first sample_sentences pairs; the first few are printed. None: there are none."""
        model, special = objective.model, self.special
        count = min(self.run.sample_sentences, len(store))
        if count == 0:
            return None
        sources = [[*map(int, store.source(i)), special.end] for i in range(count)]
        limit = min(2 * max(map(len, sources)) + 10, model.config.max_positions)
        with autocast(model.positions.device, self.run.precision):
            outputs = batch_greedy(model, sources, special.pad, special.start, special.end, limit)
        translations = self.tokenizer.decode(outputs)
        references = self.tokenizer.decode([store.target(i).tolist() for i in range(count)])
        for source, translation in list(zip(self.tokenizer.decode(sources), translations, strict=True))[:NUM_SHOWN]:
            print(f"    {source}\n -> {translation}", flush=True)
        return float(sacrebleu.corpus_bleu(translations, [references]).score)
