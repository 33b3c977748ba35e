"""Sentences of different lengths side by side without padding.

Knows: operators. Does not know: models. B sentences, S tokens of the longest, P tokens of all of them together.

Matrix products, norms and sums work on rows and need no padding: there the tokens of all sentences stand in one array
(P, ...). Only attention needs sentences of one length: (B * S, ...).
"""

from functools import cached_property

import numpy as np
from onnx import TensorProto

from export.graph_builder import GraphBuilder


class Packing:
    """Where each token of ids (B, S) stands with padding and without; lengths (B,). Only what is asked for is made."""

    def __init__(self, graph: GraphBuilder, ids: str, lengths: str) -> None:
        self.graph, self.ids, self.lengths = graph, ids, lengths

    @cached_property
    def shape(self) -> str:
        """[B, S]."""
        return self.graph.op("Shape", self.ids)

    @cached_property
    def length(self) -> str:
        """[S]."""
        return self.graph.op("Slice", self.shape, *(self.graph.constant([place], np.int64) for place in (1, 2)))

    @cached_property
    def is_token(self) -> str:
        """(B, S) bool: true on tokens, false on padding."""
        zero, one = self.graph.constant(0, np.int64), self.graph.constant(1, np.int64)
        places = self.graph.op("Range", zero, self.graph.op("Squeeze", self.length), one)
        return self.graph.op(
            "Less", places, self.graph.op("Unsqueeze", self.lengths, self.graph.constant([1], np.int64))
        )

    @cached_property
    def mask(self) -> str:
        """(B, 1, 1, S): 0 on tokens, minus infinity on padding."""
        numbers = [self.graph.constant(number, np.float32) for number in (0.0, -np.inf)]
        mask = self.graph.op("Where", self.is_token, *numbers)
        return self.graph.op("Unsqueeze", mask, self.graph.constant([1, 2], np.int64))

    @cached_property
    def flat(self) -> str:
        return self.graph.reshape(self.is_token, [-1])

    @cached_property
    def places(self) -> str:
        """(P,): of each token in (B * S)."""
        return self.graph.reshape(self.graph.op("NonZero", self.flat), [-1])

    @cached_property
    def positions(self) -> str:
        """(P,): of each token in its sentence."""
        return self.graph.op("Mod", self.places, self.length)

    @cached_property
    def tokens(self) -> str:
        """(B * S,): the token at each place, or the one before it, which attention masks out. No sentence is empty."""
        one = self.graph.constant(1, np.int64)
        counted = self.graph.op(
            "CumSum", self.graph.op("Cast", self.flat, to=TensorProto.INT64), self.graph.constant(0, np.int64)
        )
        return self.graph.op("Sub", counted, one)

    def pack(self, padded: str) -> str:
        """(B * S, ...) -> (P, ...)."""
        return self.graph.op("Gather", padded, self.places)

    def unpack(self, packed: str) -> str:
        """(P, ...) -> (B * S, ...); what stands on padding is some token's."""
        return self.graph.op("Gather", packed, self.tokens)
