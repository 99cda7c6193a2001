"""Skipping the update of a step whose loss or gradient norm is far above those before it."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from pairform.registry import PositiveFloat, Spec

LEAST = 8
"""Steps before a deviation is trusted: the standard deviation of fewer values says little."""
MOST_SKIPPED = 32


class DivergedError(Exception):
    """The loss or a gradient is not finite."""


class SkipSpec(Spec):
    """Skip the update of a step whose loss or gradient norm exceeds the mean of recent steps by many standard deviations.

    As in OLMo 2 (arXiv 2501.00656).
    """

    window: Annotated[int, Field(ge=LEAST, le=100_000)] = Field(default=128, description="Number of recent steps.")
    deviations: PositiveFloat = Field(default=6.0, description="Standard deviations above their mean.")


class Spikes:
    """The losses and gradient norms of recent steps.

    recent:  pairs of both, oldest first.
    skipped: steps in a row whose update was skipped.
    """

    def __init__(self, spec: SkipSpec, recent: Sequence[list[float]] = (), skipped: int = 0) -> None:
        self.spec = spec
        self.recent = deque(recent, maxlen=spec.window)
        self.skipped = skipped

    def skips(self, loss: float, norm: float) -> bool:
        """Whether to skip the update of a step with these values.

        Raises:
            DivergedError: `MOST_SKIPPED` steps in a row were skipped.
        """
        values = [loss, norm]
        finite = all(map(math.isfinite, values))
        spike = not finite or (len(self.recent) >= LEAST and any(map(self.exceeds, values, zip(*self.recent, strict=True))))
        if finite:  # a spike too: if the loss stays there, it is soon none
            self.recent.append(values)
        self.skipped = self.skipped + 1 if spike else 0
        if self.skipped == MOST_SKIPPED:
            raise DivergedError(f"the updates of {MOST_SKIPPED} steps in a row were skipped; the last loss is {loss}")
        return spike

    def exceeds(self, value: float, recent: tuple[float, ...]) -> bool:
        mean = sum(recent) / len(recent)
        deviation = math.sqrt(sum((each - mean) ** 2 for each in recent) / (len(recent) - 1))
        return value > mean + self.spec.deviations * deviation
