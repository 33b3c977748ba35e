"""What each word of a translation looked at: the cross-attention of the score graph as words, links and pictures.

Knows: tokens' places, words, attention weights. Does not know: bundles, commands.

The attention is that of the decoder's last layer, the mean over its heads (export/graphs.py). It shows what the network
read while it wrote a word, which is often, and not always, the word it translates.
"""

import html
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""Where a token stands in its text, as in text[start:end]."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """weights (T, S): row t is the share of target word t's attention on each source word; each row sums to at most 1.

    What is missing from 1 was on the end token, and on tokens that name languages.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: NDArray[np.float64]


class Words(NamedTuple):
    """A text's words, and for each of its tokens the number of the word it is of."""

    words: tuple[str, ...]
    places: list[int]


def words_at(text: str, spans: Sequence[Span]) -> Words:
    """What spaces separate: "a bc" with tokens at (0, 1), (2, 3), (3, 4) -> ("a", "bc"), [0, 1, 1].

    A token that stands for nothing visible is of the word it stands at or in, or of the one before.
    """
    matches = list(re.finditer(r"\S+", text))
    if not matches:  # of spaces as Unicode has them, which a vocabulary may take for characters
        return Words((text,), [0] * len(spans))
    starts = [match.start() for match in matches]
    return Words(tuple(m.group() for m in matches), [max(0, bisect_right(starts, start) - 1) for start, _ in spans])


def align_words(source: Words, target: Words, attention: NDArray[np.floating]) -> Alignment:
    """Attention between words: the sum over the source word's tokens, the mean over the target word's.

    Args:
        attention: (T or more, S or more), end tokens' places last.
    """
    weights = np.zeros((len(target.words), len(source.words)))
    for t, row in enumerate(target.places):
        for s, column in enumerate(source.places):
            weights[row, column] += attention[t, s]
    weights /= np.maximum(np.bincount(target.places, minlength=len(target.words)), 1)[:, None]
    return Alignment(source.words, target.words, weights)


def pharaoh(alignment: Alignment) -> str:
    """Each target word with the source word it looked at most: "0-0 2-1" is source 0 with target 0, 2 with 1."""
    best = alignment.weights.argmax(axis=1)
    return " ".join(f"{source}-{target}" for target, source in enumerate(best.tolist()))


def as_html(alignment: Alignment) -> str:
    """A page with the heat map as a table; it needs nothing else, and no network."""
    head = "".join(f"<th scope=col><span>{html.escape(word)}</span></th>" for word in alignment.source)
    body = "".join(
        f"<tr><th scope=row>{html.escape(word)}</th>"
        + "".join(
            f'<td style="background:rgba(20,70,160,{weight:.3f})" '
            f'title="{html.escape(word)} looks at {html.escape(source)}: {weight:.2f}">'
            f"{f'{weight:.2f}' if weight >= 0.1 else ''}</td>"
            for source, weight in zip(alignment.source, row, strict=True)
        )
        + "</tr>\n"
        for word, row in zip(alignment.target, alignment.weights.tolist(), strict=True)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Cross-attention</title><style>
body {{ font: 15px sans-serif; margin: 2em }}
table {{ border-collapse: collapse }}
td {{ width: 3em; height: 2em; border: 1px solid #ddd; text-align: center; font-size: 75%; color: #000;
     text-shadow: 0 0 3px #fff, 0 0 3px #fff }}
th[scope=row] {{ text-align: right; padding-right: .6em; font-weight: normal }}
th[scope=col] {{ font-weight: normal; vertical-align: bottom; padding-bottom: .4em }}
th[scope=col] span {{ writing-mode: vertical-rl; transform: rotate(180deg) }}
</style></head><body>
<p>Each row is a word of the translation; the darker a cell, the more that word looked at the word of its column.</p>
<table><thead><tr><td style="border:0"></td>{head}</tr></thead>
<tbody>{body}</tbody></table></body></html>
"""


def draw(alignment: Alignment, path: Path) -> None:
    """The heat map as a PNG picture.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 0.5 * len(alignment.source), 1.5 + 0.4 * len(alignment.target)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(alignment.weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    plain: dict[str, Any] = {"parse_math": False}  # a dollar sign is one
    turned: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(alignment.source)), alignment.source, **plain, **turned)
    axes.set_yticks(range(len(alignment.target)), alignment.target, **plain)
    axes.set_xlabel("source")
    axes.set_ylabel("translation")
    figure.colorbar(image, label="share of attention")
    figure.savefig(path, dpi=120, format="png")
