"""The order of training examples, computed from their numbers: which source an example is from, and which of its windows.

Nothing is stored for each window: the order of an epoch is a keyed permutation, and the mixture is arithmetic.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from pairform.training.data.batches import MIXTURE, ORDER, generator

CYCLE = 1000
"""Examples after which each source has its share, to the nearest whole number. Longer with many sources."""
ROUNDS, LEAST_BITS = 6, 6
"""Rounds of the Feistel network, an even number, and its least size. With fewer, the permutations of 3 to 12 items are visibly
not equally likely."""


class Mixture:
    """Which source each example comes from, in proportion to the weights.

    Of the first `c * cycle` examples, each source has `c * cycle * share` to the nearest whole number, and the one with the
    largest share the rest. The order within a cycle is random.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        total = math.fsum(weights)
        self.shares = [weight / total for weight in weights]
        self.largest = max(range(len(weights)), key=self.shares.__getitem__)
        # so long that the largest share is more than what rounding gives the others
        self.cycle = max(CYCLE, math.ceil(len(weights) / self.shares[self.largest]))
        self.seed = seed
        self.slots = functools.lru_cache(maxsize=2)(self.order)

    def before(self, cycle: int) -> list[int]:
        """The number of examples of each source before a cycle."""
        examples = cycle * self.cycle
        counts = [math.floor(examples * share + 0.5) for share in self.shares]
        counts[self.largest] += examples - sum(counts)
        return counts

    def order(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources of a cycle's examples, and how many examples of the same source came before each; `[cycle]`."""
        before, after = (np.array(self.before(number)) for number in (cycle, cycle + 1))
        sources = np.repeat(np.arange(len(before)), after - before)
        draws = np.concatenate([np.arange(*bounds) for bounds in zip(before, after, strict=True)])
        order = generator(MIXTURE, self.seed, cycle).permutation(sources)
        places = np.empty(len(order), np.int64)
        places[np.argsort(order, kind="stable")] = draws
        return order, places

    def examples(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of examples `first` to `first + count`, and the number of earlier ones of that source; `[count]`."""
        parts = []
        while count:
            cycle, place = divmod(first, self.cycle)
            some = min(count, self.cycle - place)
            parts.append([each[place : place + some] for each in self.slots(cycle)])
            first, count = first + some, count - some
        sources, draws = (np.concatenate(each) for each in zip(*parts, strict=True))
        return sources, draws


class Epochs:
    """The order of a source's `count` items, each once in an epoch, and in another order in the next."""

    def __init__(self, count: int, seed: int, source: int) -> None:
        self.count = count
        self.seed, self.source = seed, source
        self.keys = functools.lru_cache(maxsize=4)(self.made_keys)

    def made_keys(self, epoch: int) -> tuple[int, ...]:
        state = np.random.SeedSequence((ORDER, self.seed, self.source, epoch)).generate_state(ROUNDS + 1, np.uint64)
        return tuple(int(key) for key in state)

    def item(self, draw: int) -> tuple[int, int]:
        """The epoch of the source's example number `draw`, and the item, from 0."""
        epoch, place = divmod(draw, self.count)
        if self.count == 1:
            return epoch, 0
        return epoch, permuted(place, self.count, self.keys(epoch)[:ROUNDS])

    def offset(self, epoch: int, length: int) -> int:
        """A random number below `length` for each epoch."""
        return self.keys(epoch)[ROUNDS] % length


def permuted(place: int, count: int, keys: Sequence[int]) -> int:
    """A permutation of the numbers below `count`: a Feistel network on the next power of two, repeated until it gives such a
    number (cycle walking; Black and Rogaway 2002, Ciphers with arbitrary finite domains).
    """
    bits = max((count - 1).bit_length(), LEAST_BITS)
    low = bits // 2
    widths = bits - low, low
    while True:
        left, right = place >> low, place & (1 << low) - 1
        for number, key in enumerate(keys):
            left, right = right, left ^ mixed(right ^ key) >> 64 - widths[number % 2]
        place = left << low | right
        if place < count:
            return place


def mixed(number: int) -> int:
    """A hash of 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31
