"""The batches of a run: a function of seed and step, shared by processes, with nothing lost."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pairform
from pairform.training.data.stream import Batch, MicroBatch
from tests.batches.memory import (
    ALONE,
    ENCODER,
    END,
    MERGED,
    SEPARATE,
    MemoryStream,
    batches,
    documents,
    examples,
    mixed,
    objective,
    pairs,
    rows,
)

FIXED = objective("prefix_lm", source=24, target=24)
UNIFORM = objective("prefix_lm", source=24, target=24, split="uniform")
UL2 = objective("ul2", window=48)
STREAM = mixed(30_000)
EVERY: dict[str, tuple[pairform.ModelSpec, Any]] = {
    "fixed": (SEPARATE, FIXED),
    "uniform": (MERGED, UNIFORM),
    "ul2": (SEPARATE, UL2),
    "decoder-only": (ALONE, UL2),
    "causal": (ALONE, objective("causal_lm", window=48)),
    "masked": (ENCODER, objective("masked", window=48, shift=True)),
}


def same(first: MicroBatch, second: MicroBatch) -> bool:
    numbers = (first.labels, first.tokens, first.padded) == (second.labels, second.tokens, second.padded)
    inputs = (first.inputs, second.inputs)
    return (
        numbers
        and inputs[0].keys() == inputs[1].keys()
        and all(torch.equal(inputs[0][key], inputs[1][key]) for key in inputs[0])
    )


def equal(first: Batch, second: Batch) -> bool:
    return all(same(*pair) for pair in zip(first.micro, second.micro, strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    spec, of = EVERY[name]
    run, again = (batches(spec, of, STREAM, seed=5) for _ in range(2))
    made = [run.batch(step) for step in range(4)]
    assert all(equal(again.batch(step), made[step]) for step in (3, 1, 0, 2)), "whatever came before"
    other = batches(spec, of, STREAM, seed=6)
    found = [*made, *(other.batch(step) for step in range(4))]
    assert not any(equal(*pair) for pair in itertools.combinations(found, 2) if len(pair[0].micro) == len(pair[1].micro))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("batch", "micro"), [(16, 2), (12, 3), (8, 8)])
def test_the_parts_of_all_processes_are_the_batch(name: str, batch: int, micro: int) -> None:
    spec, of = EVERY[name]
    run = batches(spec, of, STREAM, batch=batch * 48, micro=micro)
    assert run.rows == batch
    for step, worlds in ((0, (1, 2, 4)), (7, (batch,))):
        whole = run.batch(step)
        for world in worlds:
            parts = [run.batch(step, rank, world) for rank in range(world)]
            assert len({len(part.micro) for part in parts}) == 1, "as many forward passes on each"
            assert Counter(map(str, itertools.chain(*map(examples, parts)))) == Counter(map(str, examples(whole)))
            for part in parts:
                assert (part.labels, part.tokens, part.dropped) == (whole.labels, whole.tokens, whole.dropped)
            assert sum(micro.labels for part in parts for micro in part.micro) == whole.labels
            assert sum(micro.tokens for part in parts for micro in part.micro) == whole.tokens
            if batch // world % micro == 0:  # then even the forward passes are the same
                passes = [one for number in range(len(parts[0].micro)) for one in (part.micro[number] for part in parts)]
                assert all(same(*pair) for pair in zip(passes, whole.micro, strict=True))


def test_processes_that_cannot_share_the_rows_are_told() -> None:
    run = batches(SEPARATE, FIXED, STREAM)
    assert not [*run.check_world(4)]
    for world in (3, 16):
        with pytest.raises(pairform.PairformError, match=rf"batch.tokens: found 8 rows for {world} processes"):
            run.batch(0, 0, world)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=40).filter(lambda some: sum(some) > 4 and max(some) > 2),
    seed=st.integers(0, 1000),
    drawn=st.booleans(),
)
def test_every_token_of_a_window_is_read_or_counted_as_dropped(lengths: list[int], seed: int, drawn: bool) -> None:
    stream = MemoryStream(documents(lengths))
    of = UNIFORM if drawn else FIXED
    run = batches(SEPARATE, of, stream, seed=seed)
    stream.read.clear()
    try:
        batch = run.batch(seed)
    except pairform.PairformError:
        return  # a window with nothing but documents of one token
    parts = stream.parts()
    wanted = [part.tokens.tolist() + ([END] if part.ends else []) for part in parts]
    assert Counter(map(str, (source + target for source, target in examples(batch)))) == Counter(
        str(text) for text in wanted if len(text) > 1
    )
    assert batch.dropped == sum(len(part.tokens) for part, text in zip(parts, wanted, strict=True) if len(text) < 2)
    assert batch.tokens == sum(len(text) for text in wanted if len(text) > 1)


def test_a_batch_reads_its_windows_alone() -> None:
    """However long the stream is."""
    stream = mixed(200_000)
    run = batches(SEPARATE, FIXED, stream)
    for step in (0, 10**6):
        stream.read.clear()
        run.batch(step)
        assert sum(end - begin for begin, end in stream.read) == 8 * 48


def test_windows_come_once_in_an_epoch() -> None:
    stream = mixed(10_000)
    run = batches(SEPARATE, FIXED, stream, batch=5 * 48)
    count = stream.length // 48
    assert run.epoch == count
    for step in range(-(-2 * count // 5)):
        run.batch(step)
    ring = [(begin % stream.length, end - begin) for begin, end in stream.read]
    whole = [begin for begin, length in ring if length == 48]
    seen = Counter(whole)
    assert len(whole) >= 2 * count - 4, "all windows but those around the stream's end"
    assert max(seen.values()) == 1, "another cut in the second epoch, here"


def test_sources_are_mixed_by_weight() -> None:
    streams = [
        MemoryStream([np.full(5000, 10 + number, np.int32)], weight, name)
        for number, (weight, name) in enumerate([(1.0, "a"), (6.0, "b"), (3.0, "c")])
    ]
    run = batches(SEPARATE, objective("prefix_lm", source=4, target=4), streams, batch=50 * 8, micro=50)

    def windows(steps: int) -> list[float]:
        """The windows that were read of each source."""
        for stream in streams:
            stream.read.clear()
        for step in range(steps):
            run.batch(step)
        return [sum(end - begin for begin, end in stream.read) / 8 for stream in streams]

    assert windows(40) == [200, 1200, 600]
    assert windows(8) == pytest.approx([40, 240, 120], abs=30), "within a cycle by chance"


def test_a_thread_ahead_gives_the_same_batches_and_its_errors() -> None:
    run = batches(SEPARATE, UL2, STREAM)
    ahead = [*run.batches(3, 7, 1, 2)]
    assert all(equal(batch, run.batch(step, 1, 2)) for step, batch in zip(range(3, 7), ahead, strict=True))
    assert not [*run.batches(3, 3)]
    with pytest.raises(pairform.PairformError, match="rows for 3 processes"):
        next(run.batches(0, 2, 0, 3))


REFUSED: dict[str, tuple[pairform.ModelSpec, Any, Any, dict[str, Any], str]] = {
    "a batch of less than a row": (
        SEPARATE,
        FIXED,
        STREAM,
        {"batch": 47},
        "batch.tokens: found 47, expected at least one row: 48",
    ),
    "an objective for encoders": (
        SEPARATE,
        objective("masked"),
        STREAM,
        {},
        "found masked for a model of the assembly encoder_decoder",
    ),
    "an objective for pairs": (ENCODER, FIXED, STREAM, {}, "found prefix_lm for a model of the assembly encoder_only"),
    "causal": (SEPARATE, objective("causal_lm"), STREAM, {}, "expected a model of the assembly decoder_only"),
    "no pad token": (pairform.patch(SEPARATE, {"tokens": {"pad": None}}), FIXED, STREAM, {}, "tokens.pad: found nothing"),
    "pairs for text": (SEPARATE, FIXED, pairs(3), {}, "source 'pairs': found pairs, expected text"),
    "text for pairs": (SEPARATE, objective("pairs"), STREAM, {}, "source 'memory': found text, expected pairs"),
    "no source": (SEPARATE, FIXED, [], {}, "data.shards: found no source"),
    "an empty source": (SEPARATE, FIXED, MemoryStream([]), {}, "source 'memory': found no data"),
    "bos with joined documents": (SEPARATE, FIXED, STREAM, {"bos": True, "join": True}, "data.bos: found bos with joined"),
    "a wrong setting": (SEPARATE, objective("ul2", window=1), STREAM, {}, "data.objective.window: found 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_together_is_refused(name: str) -> None:
    spec, of, stream, options, message = REFUSED[name]
    with pytest.raises(pairform.PairformError, match=message):
        batches(spec, of, stream, **options)


def test_a_batch_without_a_label_is_an_error() -> None:
    stream = MemoryStream([np.array([5], np.int32)] * 200)
    run = batches(ENCODER, objective("masked", window=48, shift=True), stream)
    with pytest.raises(pairform.PairformError, match="no label in step 3"):
        run.batch(3)
    assert rows(batches(SEPARATE, FIXED, stream).batch(0))
