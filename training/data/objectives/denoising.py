"""Span corruption: spans of the text are removed and predicted. UL2's mixture of denoisers."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, Strict

from pairform.registry import PositiveFloat, PositiveInt, Problem, Spec
from pairform.training.data.objectives.base import Lengths, Marks, Piece, Text, WindowObjective


class Denoiser(Spec):
    """One kind of span corruption."""

    span: PositiveFloat | None = Field(
        default=None, description="Mean length of a span in tokens. Default: one span, at the end of the window."
    )
    rate: Annotated[float, Field(gt=0, lt=1)] = Field(description="Fraction of the window in spans.")
    weight: PositiveFloat = Field(default=1.0, description="Relative probability with which a window gets this denoiser.")

    def counts(self, length: int) -> tuple[int, int]:
        """Of a text of `length` tokens, at least 2, the number of removed tokens and of spans, such that each span and each gap
        before one has at least one token.
        """
        noise = min(max(round(length * self.rate), 1), length - 1)
        spans = 1 if self.span is None else max(round(noise / self.span), 1)
        return noise, min(spans, noise, length - noise)


UL2 = (
    Denoiser(span=3.0, rate=0.15),
    Denoiser(span=12.0, rate=0.5),
    Denoiser(span=32.0, rate=0.15),
    Denoiser(span=32.0, rate=0.5),
    Denoiser(rate=0.75, weight=4.0),
)
"""T5Gemma 2's mixture (arXiv 2512.14856), after UL2 (Tay et al. 2022, arXiv 2205.05131, section 3.1)."""


class SpanCorruption(WindowObjective):
    """Spans of the window are removed: a sentinel stands for each in the source, and precedes it in the target.

    As in T5 (Raffel et al. 2019, arXiv 1910.10683, section 3.1.4). Each document of a window draws a denoiser of its own and
    uses the sentinels from the first one on.
    """

    name: Literal["span_corruption", "ul2"] = Field(description="`ul2`: with T5Gemma 2's denoisers, which cannot be changed.")
    window: PositiveInt = Field(default=128, description="Tokens per window.")
    denoisers: Annotated[tuple[Denoiser, ...], Strict(False), Field(min_length=1)] = Field(
        default=UL2,
        description="Kinds of corruption, of which each window draws one. Default: UL2's mixture, and the only one with the "
        "name `ul2`.",
    )
    sentinels: str = Field(
        default="spare",
        description="Tokens that stand for removed spans: `spare`, ids of the model that no text has, or a pattern of tokens "
        "in the tokenizer, such as `<unused{}>`, used in the order of their numbers.",
    )

    @property
    def lengths(self) -> list[Lengths]:
        """Lengths of its examples, one for each denoiser."""
        counts = (denoiser.counts(self.window) for denoiser in self.denoisers)
        return [(self.window - noise + spans, noise + spans + 1) for noise, spans in counts]

    @property
    def needed(self) -> int:
        return self.needed_at(self.window)

    def needed_at(self, window: int) -> int:
        """Number of sentinels with windows of that length."""
        return max(denoiser.counts(window)[1] for denoiser in self.denoisers)

    def fitting(self, sentinels: int) -> str:
        """The choices with which fewer sentinels are enough, as a sentence."""
        low, high = 2, self.window  # `low` fits, `high` does not
        if not sentinels:
            return "Every denoiser needs at least one."
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.needed_at(middle) <= sentinels else (low, middle)
        longer = [
            f"{shortest(noise, sentinels):g} instead of {denoiser.span:g} at rate {denoiser.rate:g}"
            for denoiser in self.denoisers
            if denoiser.span is not None
            for noise, spans in [denoiser.counts(self.window)]
            if spans > sentinels
        ]
        return f"{sentinels} fit a window of {low:,}, or mean spans of {', '.join(longer)}."

    def check(self) -> Iterator[Problem]:
        if self.window < 2:
            yield Problem("window", str(self.window), "at least 2")
        if self.name == "ul2" and self.denoisers != UL2:
            yield Problem("denoisers", "other denoisers than UL2's", "none with the name ul2", "Name it span_corruption.")

    def examples(self, texts: Sequence[Text], numbers: np.random.Generator, marks: Marks) -> list[Piece | None]:
        weights = np.array([denoiser.weight for denoiser in self.denoisers])
        bounds = (weights / weights.sum()).cumsum()
        bounds /= bounds[-1]
        made: list[Piece | None] = []
        for tokens, _ in texts:
            if len(tokens) < 2:
                made.append(None)
                continue
            denoiser = self.denoisers[int(bounds.searchsorted(numbers.random(), side="right"))]  # as `Generator.choice` does
            noise, spans = denoiser.counts(len(tokens))
            kept, removed = cut(len(tokens) - noise, spans, numbers), cut(noise, spans, numbers)
            made.append(corrupted(tokens, kept, removed, marks))
        return made


def corrupted(tokens: np.ndarray, kept: np.ndarray, removed: np.ndarray, marks: Marks) -> Piece:
    """The example of a text that consists of runs of `kept` and of `removed` tokens by turns; `[spans]` lengths."""
    spans, end = len(kept), np.full(1, marks.end, np.int32)
    sentinels = marks.sentinels[:spans]
    if spans == 1:
        place = int(kept[0])
        return Piece(np.concatenate((tokens[:place], sentinels)), np.concatenate((sentinels, tokens[place:], end)))
    runs = np.empty(2 * spans, np.int64)
    runs[::2], runs[1::2] = kept, removed
    inside = np.repeat(np.arange(2 * spans) % 2 == 1, runs)
    places = np.arange(spans)
    source = inserted(tokens[~inside], sentinels, kept.cumsum() + places)
    target = inserted(np.concatenate((tokens[inside], end)), sentinels, removed.cumsum() - removed + places)
    return Piece(source, target)


def inserted(tokens: np.ndarray, others: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`tokens` with `others` among them, which have the `places` in the result."""
    whole = np.empty(len(tokens) + len(others), np.int32)
    rest = np.ones(len(whole), bool)
    rest[places] = False
    whole[places], whole[rest] = others, tokens
    return whole


def cut(total: int, parts: int, numbers: np.random.Generator) -> np.ndarray:
    """A uniformly random split of `total` into `parts` lengths of at least 1; `[parts]`."""
    bounds = np.empty(parts + 1, np.int64)
    bounds[0], bounds[-1] = 0, total
    bounds[1:-1] = numbers.permutation(total - 1)[: parts - 1] + 1
    bounds.sort()
    return bounds[1:] - bounds[:-1]


def shortest(noise: int, spans: int) -> float:
    """The shortest mean length, to a tenth of a token, with which `noise` tokens make at most so many spans."""
    length = math.ceil(10 * noise / (spans + 0.5)) / 10
    return length if round(noise / length) <= spans else length + 0.1
