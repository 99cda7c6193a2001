"""Which example comes when: every window once in an epoch, sources in the shares of their weights."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pairform.training.data.stream.order import Epochs, Mixture
from pairform.training.data.stream.windows import Windows
from tests.batches.chi_squared import as_likely
from tests.batches.memory import MemoryStream, documents

SEEDS = st.integers(0, 2**31 - 1)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 300), seed=SEEDS, source=st.integers(0, 50), epoch=st.integers(0, 10**9))
def test_an_epoch_has_every_item_once(count: int, seed: int, source: int, epoch: int) -> None:
    epochs = Epochs(count, seed, source)
    drawn = [epochs.item(epoch * count + place) for place in range(count)]
    assert {number for number, _ in drawn} == {epoch}
    assert sorted(item for _, item in drawn) == [*range(count)]


def test_each_epoch_source_and_seed_has_an_order_of_its_own() -> None:
    orders = [
        tuple(Epochs(50, seed, source).item(epoch * 50 + place)[1] for place in range(50))
        for seed, source, epoch in itertools.product(range(3), repeat=3)
    ]
    assert len({*orders}) == 27


def test_every_order_is_equally_likely() -> None:
    """The 24 orders of 4 items, and of 40 items where each comes first, as in a permutation drawn by chance."""
    four = Epochs(4, 0, 0)
    orders = [tuple(four.item(4 * epoch + place)[1] for place in range(4)) for epoch in range(6000)]
    numbers = {order: number for number, order in enumerate(itertools.permutations(range(4)))}
    assert as_likely([numbers[order] for order in orders], [1 / 24] * 24)
    forty = Epochs(40, 0, 0)
    for place in (0, 39):
        assert as_likely([forty.item(40 * epoch + place)[1] for epoch in range(4000)], [1 / 40] * 40)


def test_a_billion_windows_take_no_memory_and_no_time() -> None:
    epochs = Epochs(10**12, 0, 0)
    drawn = [epochs.item(draw)[1] for draw in range(2000)]
    assert len({*drawn}) == 2000
    assert max(drawn) > 9e11
    assert min(drawn) < 1e11


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    window=st.integers(2, 60),
    seed=SEEDS,
    epoch=st.integers(0, 1000),
)
def test_an_epoch_reads_every_token_once_but_less_than_a_window(lengths: list[int], window: int, seed: int, epoch: int) -> None:
    stream = MemoryStream(documents(lengths))
    windows = Windows(stream, window, seed, 0)
    count = windows.epochs.count
    read = np.zeros(stream.length, int)
    for place in range(count):
        begin, end = windows.bounds(epoch * count + place)
        assert end - begin == min(window, stream.length)
        read[np.arange(begin, end) % stream.length] += 1
        parts = windows.fragments(epoch * count + place)
        found = [token for part in parts for token in (*part.tokens.tolist(), *([1] if part.ends else []))]
        assert found == stream.window(begin, end)
    assert read.max() == 1
    assert (read == 0).sum() < window


def test_every_epoch_cuts_the_stream_at_another_token() -> None:
    stream = MemoryStream(documents([1000]))
    windows = Windows(stream, 10, 0, 0)
    cuts = [windows.bounds(100 * epoch)[0] % 10 for epoch in range(100)]
    assert len({*cuts}) == 10


WEIGHTS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS, seed=SEEDS, cycle=st.integers(0, 10**6))
def test_sources_have_their_shares_to_the_nearest_whole_number(weights: list[float], seed: int, cycle: int) -> None:
    mixture = Mixture(weights, seed)
    before, after = (np.array(mixture.before(number)) for number in (cycle, cycle + 1))
    wanted = cycle * mixture.cycle * np.array(weights) / math.fsum(weights)
    wrong = np.abs(before - wanted)
    largest = int(np.argmax(weights))
    assert np.delete(wrong, largest).max(initial=0) <= 0.5 + 1e-3
    assert wrong[largest] <= len(weights) / 2 + 1e-3
    sources, draws = mixture.order(cycle)
    for source in range(len(weights)):
        assert draws[sources == source].tolist() == [*range(before[source], after[source])]


@settings(max_examples=50, deadline=None)
@given(weights=WEIGHTS, first=st.integers(0, 10**7), counts=st.lists(st.integers(0, 2500), min_size=1, max_size=4))
def test_examples_are_the_same_however_they_are_asked_for(weights: list[float], first: int, counts: list[int]) -> None:
    whole = Mixture(weights, 3).examples(first, sum(counts) + 1)
    mixture = Mixture(weights, 3)
    begin = first
    for count in counts:
        for place in range(begin, begin + count, 997):
            one = mixture.examples(place, 1)
            assert [each[0] for each in one] == [each[place - first] for each in whole]
        begin += count


def test_sources_are_drawn_in_random_order_within_a_cycle() -> None:
    sources, _ = Mixture([1.0, 3.0], 0).examples(0, 10_000)
    assert sources.sum() == 7500
    pairs = 2 * sources[::2] + sources[1::2]
    assert as_likely(pairs.tolist(), [1 / 16, 3 / 16, 3 / 16, 9 / 16])
    assert not np.array_equal(sources[:1000], sources[1000:2000])
