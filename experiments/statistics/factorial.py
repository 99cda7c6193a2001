"""Two-level fractional factorial designs: which combinations to run, and which effects they cannot tell apart."""

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import xor

MOST_FACTORS = 10


def generators(factors: int, resolution: int) -> tuple[int, ...]:
    """The defining words of the smallest regular design in which no word is shorter than `resolution`.

    Bits are factors. Each word ties one of the last factors to a product of the first ones; all their products, too, are as
    long (Box and Hunter 1961, "The 2^(k-p) fractional factorial designs"). There is none if every combination is needed.
    """
    for generated in range(factors - 1, 0, -1):
        found = search((), list(range(factors - generated, factors)), factors - generated, resolution)
        if found is not None:
            return found
    return ()


def search(words: tuple[int, ...], missing: Sequence[int], base: int, resolution: int) -> tuple[int, ...] | None:
    """`words` with one more for each of the `missing` factors; None if there are none of this resolution."""
    if not missing:
        return words
    for size in range(base, resolution - 2, -1):
        for product in itertools.combinations(range(base), size):
            word = sum(1 << factor for factor in product) | 1 << missing[0]
            if all((word ^ other).bit_count() >= resolution for other in products(words)):
                found = search((*words, word), missing[1:], base, resolution)
                if found is not None:
                    return found
    return None


def products(words: Sequence[int]) -> list[int]:
    """The products of all subsets of `words`, the empty one first."""
    return [reduce(xor, chosen, 0) for size in range(len(words) + 1) for chosen in itertools.combinations(words, size)]


def runs(factors: int, words: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The levels, 0 or 1, of each factor in each run. The first run has the first level of all."""
    base = factors - len(words)
    for levels in itertools.product((0, 1), repeat=base):
        code = sum(level << place for place, level in enumerate(levels))
        yield (*levels, *((word & code).bit_count() % 2 for word in words))


def aliases(factors: int, words: Sequence[int], order: int = 2) -> list[tuple[int, ...]]:
    """Groups of effects, of up to `order` factors, that the design cannot tell apart. An effect's bits are its factors."""
    relation = products(words)
    effects = [
        sum(1 << each for each in chosen)
        for size in range(1, order + 1)
        for chosen in itertools.combinations(range(factors), size)
    ]
    groups = {
        tuple(sorted((effect ^ word for word in relation), key=lambda each: (each.bit_count(), each))) for effect in effects
    }
    shown = [tuple(effect for effect in group if 0 < effect.bit_count() <= order) for group in groups]
    return sorted((group for group in shown if len(group) > 1), key=lambda group: (group[0].bit_count(), group))


def alias_groups(factors: Sequence[str], resolution: int) -> list[list[str]]:
    """Factors and interactions of two that the design cannot tell apart, as in `["depth", "norm by width"]`."""
    groups = aliases(len(factors), generators(len(factors), resolution))
    return [
        [effect_name([name for place, name in enumerate(factors) if effect >> place & 1]) for effect in group]
        for group in groups
    ]


def effect_name(factors: Sequence[str]) -> str:
    """A factor, or an interaction as in `norm by width`."""
    return " by ".join(factors)
