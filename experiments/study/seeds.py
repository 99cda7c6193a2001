"""The seeds of a study: listed, or as many as its differences need."""

from typing import Annotated

from pydantic import Field, Strict

from pairform.experiments.statistics.intervals import FEWEST
from pairform.registry import PositiveFloat, Spec
from pairform.training.settings import Count


class SeedsUntil(Spec):
    """As many seeds, from 0, as it takes until the differences are known precisely enough."""

    until: PositiveFloat = Field(
        description="Half-width of the 95 % interval that each difference in loss from the first variant, or main effect of a "
        "factor, must reach. Variants with failed trials do not count."
    )
    most: Annotated[int, Field(ge=FEWEST, le=1000)] = Field(default=16, description="Largest number of seeds.")


Seeds = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)] | SeedsUntil


def all_seeds(seeds: Seeds) -> tuple[int, ...]:
    """All seeds that may be run."""
    return tuple(range(seeds.most)) if isinstance(seeds, SeedsUntil) else seeds


def first_seeds(seeds: Seeds) -> int:
    """Number of seeds that are run in any case."""
    return FEWEST if isinstance(seeds, SeedsUntil) else len(seeds)
