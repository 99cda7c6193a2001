"""Objectives on running text: how a window becomes a source and a target."""

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, Strict

from pairform.registry import PositiveFloat, PositiveInt, Problem, Spec
from pairform.training.data.batches import Example, Lengths


class PrefixLM(Spec):
    """The target is what follows the source in the text (T5Gemma, arXiv 2504.06225, section 3: both halves as long)."""

    name: Literal["prefix_lm"]
    source: PositiveInt = Field(default=64, description="Tokens of the source.")
    target: PositiveInt = Field(default=64, description="Tokens of the target, which follows the source in the text.")

    @property
    def window(self) -> int:
        """Tokens of text in an example."""
        return self.source + self.target

    @property
    def lengths(self) -> list[Lengths]:
        """Lengths of its examples."""
        return [(self.source, self.target)]

    @property
    def sentinels(self) -> int:
        """Number of ids that it needs beyond those of the text."""
        return 0

    def check(self) -> Iterator[Problem]:
        yield from ()

    def split(self, window: list[int], numbers: np.random.Generator, spare: tuple[int, ...], end: int) -> Example:
        """Source and target. The text goes on after the target, so no end token follows it."""
        return window[: self.source], window[self.source :]


class Denoiser(Spec):
    """One kind of span corruption."""

    span: PositiveFloat | None = Field(
        default=None, description="Mean length of a span in tokens. Default: one span, at the end of the window."
    )
    rate: Annotated[float, Field(gt=0, lt=1)] = Field(description="Fraction of the window in spans.")
    weight: PositiveFloat = Field(default=1.0, description="Relative probability with which a window gets this denoiser.")


UL2 = (
    Denoiser(span=3.0, rate=0.15),
    Denoiser(span=12.0, rate=0.5),
    Denoiser(span=32.0, rate=0.15),
    Denoiser(span=32.0, rate=0.5),
    Denoiser(rate=0.75, weight=4.0),
)
"""T5Gemma 2's mixture (arXiv 2512.14856), after UL2 (Tay et al. 2022, arXiv 2205.05131, section 3.1)."""


class SpanCorruption(Spec):
    """Spans of the window are removed: a sentinel stands for each in the source, and precedes it in the target.

    As in T5 (Raffel et al. 2019, arXiv 1910.10683, section 3.1.4). Sentinels are ids that do not occur in text.
    """

    name: Literal["span_corruption"]
    window: PositiveInt = Field(default=128, description="Tokens per window.")
    denoisers: Annotated[tuple[Denoiser, ...], Strict(False), Field(min_length=1)] = Field(
        default=UL2, description="Kinds of corruption, of which each window draws one. Default: UL2's mixture."
    )

    @property
    def lengths(self) -> list[Lengths]:
        """Lengths of its examples, one for each denoiser."""
        counts = (self.counts(denoiser) for denoiser in self.denoisers)
        return [(self.window - noise + spans, noise + spans + 1) for noise, spans in counts]

    def counts(self, denoiser: Denoiser) -> tuple[int, int]:
        """Number of removed tokens and of spans, such that each span and each gap before one has at least one token."""
        noise = min(max(round(self.window * denoiser.rate), 1), self.window - 1)
        spans = 1 if denoiser.span is None else max(round(noise / denoiser.span), 1)
        return noise, min(spans, noise, self.window - noise)

    @property
    def sentinels(self) -> int:
        """Number of ids that it needs beyond those of the text."""
        return max(self.counts(denoiser)[1] for denoiser in self.denoisers)

    def check(self) -> Iterator[Problem]:
        if self.window < 2:
            yield Problem("data.objective.window", str(self.window), "at least 2")

    def split(self, window: list[int], numbers: np.random.Generator, spare: tuple[int, ...], end: int) -> Example:
        weights = np.array([denoiser.weight for denoiser in self.denoisers])
        noise, spans = self.counts(self.denoisers[int(numbers.choice(len(weights), p=weights / weights.sum()))])
        source: list[int] = []
        target: list[int] = []
        start = 0
        lengths = zip(cut(len(window) - noise, spans, numbers), cut(noise, spans, numbers), strict=True)
        # there are at least as many spare ids as spans
        for sentinel, (kept, removed) in zip(spare, lengths, strict=False):
            source += [*window[start : start + kept], sentinel]
            target += [sentinel, *window[start + kept : start + kept + removed]]
            start += kept + removed
        return source, [*target, end]


def cut(total: int, parts: int, numbers: np.random.Generator) -> list[int]:
    """A uniformly random split of `total` into `parts` lengths of at least 1."""
    # `parts - 1` of the `total - 1` places between two tokens
    ends = sorted(int(index) + 1 for index in numbers.permutation(total - 1)[: parts - 1])
    return [end - begin for begin, end in zip([0, *ends], [*ends, total], strict=True)]


Objective = Annotated[PrefixLM | SpanCorruption, Field(discriminator="name")]
