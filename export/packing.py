"""Sentences of different lengths side by side without padding.

Knows: operators. Does not know: models. B sentences, S tokens of the longest, P tokens of all of them together.

Matrix products, norms and sums work on rows and need no padding: there the tokens of all sentences stand in one array
(P, ...). Only attention needs sentences of one length: (B * S, ...).
"""

import numpy as np

from export.graph_builder import GraphBuilder


class Packing:
    """Where each token stands with padding and without."""

    def __init__(self, graph: GraphBuilder, is_token: str) -> None:
        """is_token: (B, S) bool, true for tokens, false for padding."""
        self.graph = graph
        flat = graph.reshape(is_token, [-1])
        self.places = graph.reshape(graph.op("NonZero", flat), [-1])  # (P,): of each token in (B * S)
        one = graph.constant(1, np.int64)
        counted = graph.op("CumSum", graph.op("Cast", flat, to=7), graph.constant(0, np.int64))
        # (B * S,): the token at each place, or the one before it, which attention masks out. No sentence is empty.
        self.tokens = graph.op("Sub", counted, one)

    def pack(self, padded: str) -> str:
        """(B * S, ...) -> (P, ...)."""
        return self.graph.op("Gather", padded, self.places)

    def unpack(self, packed: str) -> str:
        """(P, ...) -> (B * S, ...); what stands on padding is some token's."""
        return self.graph.op("Gather", packed, self.tokens)
