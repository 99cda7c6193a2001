"""What objectives make of a window: nothing is lost, and what they draw is as declared over 10,000 windows."""

import itertools
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairform.training.data.objectives import UL2, Marks, Piece, Text
from tests.batches.chi_squared import as_likely
from tests.batches.memory import documents, objective

END, MASK, SENTINELS = 1, 99, range(100, 400)
MARKS = Marks(END, np.array(SENTINELS, np.int32), MASK, np.arange(3, 43, dtype=np.int32))
WINDOWS = 10_000


def texts(lengths: list[int], ends: bool = True) -> list[Text]:
    return [Text(tokens, ends) for tokens in documents(lengths)]


def made(name: str, some: list[Text], seed: int = 0, **fields: Any) -> list[Piece | None]:
    return objective(name, **fields).examples(some, np.random.default_rng(seed), MARKS)


def restored(piece: Piece) -> list[int]:
    """The text of span corruption: each sentinel of the source with what stands behind it in the target."""
    taken: dict[int, list[int]] = {}
    for token in piece.target[:-1].tolist():
        if token in SENTINELS:
            taken[token] = []
        else:
            taken[list(taken)[-1]].append(token)
    assert [token for token in piece.source.tolist() if token in SENTINELS] == [*taken] == [*SENTINELS][: len(taken)]
    return [token for place in piece.source.tolist() for token in taken.get(place, [place])]


LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    ends=st.booleans(),
    seed=st.integers(0, 1000),
    name=st.sampled_from(["fixed", "uniform", "ul2", "causal_lm"]),
)
def test_source_and_target_are_the_text_and_its_end(lengths: list[int], ends: bool, seed: int, name: str) -> None:
    some = texts(lengths, ends)
    fields: dict[str, Any] = {"window": 50}
    if name in ("fixed", "uniform"):
        name, fields = "prefix_lm", {"source": 20, "target": 30, "split": name}
    for text, piece in zip(some, made(name, some, seed, **fields), strict=True):
        end = [END] if ends else []
        whole = text.tokens.tolist() + end
        if name == "ul2":
            assert (piece is None) == (len(text.tokens) < 2)
            assert piece is None or (restored(piece) == text.tokens.tolist() and piece.target[-1] == END)
            continue
        assert (piece is None) == (len(whole) < 2)
        if piece is not None and name == "prefix_lm":
            assert [*piece.source.tolist(), *piece.target.tolist()] == whole
            assert len(piece.source)
            assert len(piece.target)
        elif piece is not None:
            assert piece.source.tolist() == piece.target.tolist() == whole


@settings(max_examples=100, deadline=None)
@given(cuts=st.sets(st.integers(1, 89), max_size=8), source=st.integers(30, 60))
def test_a_fixed_split_of_several_documents_fills_the_row_as_declared(cuts: set[int], source: int) -> None:
    """With documents of ten tokens or more the source has its number of tokens exactly, as with one document."""
    bounds = [0, *(10 * cut for cut in sorted(cuts)), 900]
    lengths = [last - first for first, last in itertools.pairwise(bounds)]
    pieces = made("prefix_lm", texts(lengths, ends=False), source=10 * source, target=900 - 10 * source)
    sizes = [(len(piece.source), len(piece.target)) for piece in pieces if piece]
    assert [sum(side) for side in zip(*sizes, strict=True)] == [10 * source, 900 - 10 * source]
    for length, (read, _) in zip(lengths, sizes, strict=True):
        assert abs(read - length * source / 90) <= 1, "each document in the proportion of the window"


def test_drawn_splits_are_uniform() -> None:
    some = texts([24])
    numbers, split = np.random.default_rng(0), objective("prefix_lm", source=12, target=13, split="uniform")
    places = [len(split.examples(some, numbers, MARKS)[0].source) for _ in range(WINDOWS)]
    assert (min(places), max(places)) == (1, 24)
    assert as_likely([place - 1 for place in places], [1 / 24] * 24)


def test_denoisers_spans_and_rates_of_ul2_are_as_declared() -> None:
    """Over 10,000 windows: which denoiser, how many tokens it removes in how many spans, and how long the first one is."""
    window = 256
    wanted = [denoiser.counts(window) for denoiser in UL2]
    assert wanted == [(38, 13), (128, 11), (38, 1), (128, 4), (192, 1)]
    for (noise, spans), denoiser in zip(wanted, UL2, strict=True):
        assert noise == pytest.approx(denoiser.rate * window, abs=0.5)
        assert denoiser.span is None or noise / denoiser.span == pytest.approx(spans, abs=0.5)
    some, numbers, ul2 = texts([window], ends=False), np.random.default_rng(1), objective("ul2", window=window)
    kinds, first = [], Counter[int]()
    for _ in range(WINDOWS):
        piece = ul2.examples(some, numbers, MARKS)[0]
        sentinels = np.flatnonzero(piece.target >= SENTINELS[0])
        kind = wanted.index((len(piece.target) - 1 - len(sentinels), len(sentinels)))
        kinds.append(kind)
        if kind == 1:
            first[int(sentinels[1] - sentinels[0] - 1)] += 1
    assert as_likely(kinds, [denoiser.weight for denoiser in UL2])
    assert not as_likely(kinds, [1, 1, 1, 1, 1]), "the test sees a wrong mixture"
    ways = [math.comb(128 - length - 1, 9) for length in range(1, 119)]  # of 128 tokens in 11 spans, the first of this length
    assert as_likely([length - 1 for length, count in first.items() for _ in range(count)], ways)


@pytest.mark.parametrize(("shift", "rate"), [(False, 0.4), (True, 0.15)])
def test_masked_tokens_are_as_many_and_as_anywhere_as_declared(shift: bool, rate: float) -> None:
    """Over 10,000 windows of three documents: how many tokens are predicted, where, and what stands for them."""
    some = texts([7, 1, 13])
    numbers = np.random.default_rng(2)
    masked = objective("masked", window=21, rate=rate, random=0.2, keep=0.1, shift=shift)
    counts, places, kinds = [], [], []
    room = 21 - (3 if shift else 0)
    for _ in range(WINDOWS):
        predicted = 0
        for number, (text, piece) in enumerate(zip(some, masked.examples(some, numbers, MARKS), strict=True)):
            if piece is None:
                assert shift
                assert number == 1, "one token has no place before it"
                continue
            assert len(piece.source) == len(piece.target) == len(text.tokens)
            chosen = np.flatnonzero(piece.target >= 0)
            read = chosen + int(shift)
            assert (piece.target[chosen] == text.tokens[read]).all(), "the label is the token itself"
            rest = np.delete(np.arange(len(text.tokens)), read)
            assert (piece.source[rest] == text.tokens[rest]).all()
            predicted += len(chosen)
            places += [int(place) + 7 * (number > 0) + (number > 1) for place in chosen]
            kinds += [
                0 if now == MASK else 1 if now == old else 2
                for now, old in zip(piece.source[read], text.tokens[read], strict=True)
            ]
        counts.append(predicted)
    low, part = int(room * rate), room * rate % 1
    assert as_likely([count - low for count in counts], [1 - part, part])
    assert as_likely(places, [0 if shift and place in (6, 7, 20) else 1 for place in range(21)])
    same = 0.2 / 40  # a random word may be the token itself
    assert as_likely(kinds, [0.7, 0.1 + same, 0.2 - same])


def test_settings_that_cannot_be_are_refused() -> None:
    for name, fields, where in (
        ("ul2", {"denoisers": [{"rate": 0.5}]}, "denoisers"),
        ("ul2", {"window": 1}, "window"),
        ("masked", {"random": 0.6, "keep": 0.6}, "random"),
        ("masked", {"window": 1}, "window"),
    ):
        assert [problem.where for problem in objective(name, **fields).check()] == [where]
    assert not [*objective("ul2", window=2).check(), *objective("masked", random=0.5, keep=0.5).check()]


def test_objectives_are_read_without_torch() -> None:
    """A recipe is checked before anything slow is imported."""
    command = "import sys; import pairform.training.data.objectives; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False, timeout=60).returncode == 0


def test_pairs_are_truncated_and_then_have_no_end() -> None:
    pairs = objective("pairs", source=3, target=4)
    source, target = np.arange(10, 15), np.arange(20, 26)
    whole, cut = pairs.pair(source[:3], target[:3], MARKS), pairs.pair(source, target, MARKS)
    assert [side.tolist() for side in whole] == [[10, 11, 12], [20, 21, 22, END]]
    assert [side.tolist() for side in cut] == [[10, 11, 12], [20, 21, 22, 23]]
    assert [side.tolist() for side in pairs.pair(source[:1], target[:0], MARKS)] == [[10], [END]]
    assert pairs.pair(source[:0], target, MARKS) is None
