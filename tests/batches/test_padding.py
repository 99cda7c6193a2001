"""Packing: little of a batch is padding, and the loss of packed examples is their loss alone."""

from typing import Any

import numpy as np
import pytest
import torch

import pairform
from pairform.training.data.objectives import Piece
from pairform.training.data.stream import packing
from pairform.training.data.stream.layout import as_text
from pairform.training.data.stream.packing import (
    MOST_WINDOWS,
    balanced,
    grouped,
    lengths,
    pack,
    padding,
    passes,
    size,
    split,
)
from tests.batches.memory import ALONE, ENCODER, MERGED, SEPARATE, MemoryStream, batches, documents, examples, mixed, objective

OBJECTIVES: dict[str, Any] = {
    "fixed": objective("prefix_lm", source=64, target=64),
    "uneven": objective("prefix_lm", source=100, target=28),
    "uniform": objective("prefix_lm", source=64, target=64, split="uniform"),
    "ul2": objective("ul2", window=128),
}
WIDE = pairform.patch(SEPARATE, {"vocabulary": 200})


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("median", [20, 120, 600])
@pytest.mark.parametrize(("count", "micro"), [(8, 2), (32, 32), (64, 4)])
def test_less_than_one_token_in_twenty_is_padding(name: str, median: float, count: int, micro: int) -> None:
    """Of documents with log-normal lengths, from much shorter than a window to much longer."""
    run = batches(WIDE, OBJECTIVES[name], mixed(60_000, median), batch=count * 128, micro=micro)
    made = [run.batch(step) for step in range(256 // count)]
    tokens = sum(one.tokens for batch in made for one in batch.micro)
    padded = sum(one.padded for batch in made for one in batch.micro)
    dropped = sum(batch.dropped for batch in made)
    assert tokens == sum(batch.tokens for batch in made)
    assert 1 - tokens / padded < 0.05
    assert dropped < 0.01 * tokens
    assert tokens > 0.96 * 256 * 128


@pytest.mark.parametrize("drawn", ["ul2", "uniform"])
@pytest.mark.parametrize(("count", "micro"), [(8, 8), (32, 32), (32, 16), (64, 64)])
def test_long_windows_of_long_documents_are_split_into_passes_with_little_padding(drawn: str, count: int, micro: int) -> None:
    """Of which each is one example, so that few have the same lengths, and rows of several would be too long."""
    spec = pairform.patch(SEPARATE, {"vocabulary": 400})
    of = objective("ul2", window=4096) if drawn == "ul2" else objective("prefix_lm", source=2048, target=2048, split="uniform")
    run = batches(spec, of, MemoryStream(documents([300_000])), batch=count * 4096, micro=micro)
    made = [run.batch(step) for step in range(128 // count)]
    assert 1 - sum(batch.tokens for batch in made) / sum(one.padded for batch in made for one in batch.micro) < 0.05
    passed = [len(batch.micro) / (count // micro) for batch in made]
    assert 1 < max(passed) <= packing.MOST_PASSES


def test_processes_split_their_passes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for any number of processes the forward passes are the same."""
    monkeypatch.setattr(packing, "LONGEST", 48)
    drawn = objective("prefix_lm", source=24, target=24, split="uniform")
    run = batches(SEPARATE, drawn, MemoryStream(documents([20_000])), batch=16 * 48, micro=4)
    for step in range(4):
        whole = run.batch(step)
        assert len(whole.micro) > 4, "split"
        for world in (2, 4):
            parts = [run.batch(step, rank, world) for rank in range(world)]
            assert len({len(part.micro) for part in parts}) == 1
            split_passes = [sorted(str(one.inputs) for part in some for one in part.micro) for some in (parts, [whole])]
            assert split_passes[0] == split_passes[1]


@pytest.mark.parametrize(
    ("spec", "of"),
    [
        (SEPARATE, objective("prefix_lm", source=24, target=24)),
        (SEPARATE, objective("ul2", window=48)),
        (MERGED, objective("prefix_lm", source=24, target=24, split="uniform")),
        (MERGED, objective("ul2", window=48)),
        (ALONE, objective("ul2", window=48)),
        (ALONE, objective("causal_lm", window=48)),
        (ENCODER, objective("masked", window=48, rate=0.4)),
        (ENCODER, objective("masked", window=48, rate=0.4, shift=True)),
    ],
)
def test_the_loss_of_packed_examples_is_their_loss_alone(spec: pairform.ModelSpec, of: Any) -> None:
    """So no example attends to another or predicts its tokens."""
    model = pairform.build(spec, seed=0)
    batch = batches(spec, of, mixed(20_000, 15.0), micro=3).batch(0)
    assert max(len(examples(batch)), batch.examples) == batch.examples > 16, "several in a row"
    with torch.no_grad():
        packed = sum(model(**one.inputs).loss * one.labels for one in batch.micro)
        alone = torch.zeros(())
        for source, labels in examples(batch):
            count = sum(label >= 0 for label in labels)
            if count:
                alone = alone + model(torch.tensor([source]), labels=torch.tensor([labels])).loss * count
    torch.testing.assert_close(packed / batch.labels, alone / batch.labels, rtol=1e-5, atol=1e-5)


def test_rows_of_one_example_have_no_segments() -> None:
    """Then attention needs no mask of segments; their loss is the same with one."""
    run = batches(SEPARATE, objective("prefix_lm", source=24, target=24), MemoryStream(documents([10_000])))
    batch = run.batch(0)
    assert {*batch.micro[0].inputs} == {"input_ids", "attention_mask", "labels"}
    model, inputs = pairform.build(SEPARATE, seed=0), batch.micro[0].inputs
    segments = torch.ones_like(inputs["labels"])
    with_segments = model(**inputs, segment_ids=segments, decoder_segment_ids=segments).loss
    torch.testing.assert_close(model(**inputs).loss, with_segments, rtol=1e-5, atol=1e-5)


def test_a_decoder_only_model_reads_the_same_rows_and_predicts_the_same_labels() -> None:
    """A teacher's text, of which it predicts the targets from the sources and the targets' beginnings."""
    for micro in batches(SEPARATE, objective("prefix_lm", source=24, target=24), mixed(20_000, 15.0)).batch(0).micro:
        inputs, all_places = as_text(micro.rows, pad=0)
        counts = micro.inputs["labels"] >= 0
        places, labels = all_places[counts], micro.inputs["labels"][counts]
        assert not all_places[~counts].any()
        assert torch.equal(inputs["input_ids"].flatten()[places + 1], labels)
        assert torch.equal(inputs["segment_ids"].flatten()[places + 1], inputs["segment_ids"].flatten()[places])
        logits = pairform.build(ALONE, seed=0)(**inputs).logits.flatten(0, 1)[places]
        alone = [Piece(one.source, one.target) for row in micro.rows for one in row]
        first = torch.from_numpy(np.concatenate(alone[0]))[None].long()
        expected = pairform.build(ALONE, seed=0)(first).logits[0, len(alone[0].source) - 1 : -1]
        torch.testing.assert_close(logits[: len(alone[0].target)], expected, rtol=1e-5, atol=1e-5)


def test_a_decoder_only_model_reads_bos_once_before_each_text() -> None:
    row = [Piece(*(torch.tensor(ids).numpy() for ids in one)) for one in (([5, 6], [7, 8]), ([2, 9], [10]))]
    inputs, places = as_text([row, row[:1]], pad=0, bos=2)
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 7, 8, 2, 9, 10], [2, 5, 6, 7, 8, 0, 0, 0]]
    assert inputs["segment_ids"].tolist() == [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert places.tolist() == [[2, 3, 6], [10, 11, 0]]


def pieces(*sizes: tuple[int, int]) -> list[Piece]:
    return [Piece(*(torch.zeros(length).numpy() for length in one)) for one in sizes]


def test_windows_that_differ_share_rows_and_others_do_not() -> None:
    alike, unlike = [[one] for one in pieces(*[(10, 10)] * 6)], [[one] for one in pieces(*[(18, 2), (2, 18)] * 3)]
    assert pack(alike) == alike
    rows = pack(unlike)
    assert [lengths(row) for row in rows] == [(20, 20)] * 3
    assert sum(map(len, rows)) == 6
    long = [[one] for one in pieces(*[(16000, 500), (500, 16000)])]
    assert pack(long) == long, "attention over rows twice as long takes longer than the padding"
    many = pack([[one] for one in pieces(*((7 * number % 90 + 1, 90) for number in range(40)))])
    assert len(many) >= 40 / MOST_WINDOWS
    assert pack([[], *alike, []]) == alike, "no row without an example"
    assert pack([[], []]) == [[]]


def test_a_pass_is_split_between_windows_that_differ() -> None:
    some = [[one] for one in pieces((90, 10), (88, 12), (86, 14), (40, 60), (38, 62), (5, 95))]
    assert [len(part) for part in split(some, 3)] == [3, 2, 1]
    assert [one for part in split(some, 4) for one in part] == some, "in order"
    assert [len(part) for part in split(some[:2], 3)] == [1, 1], "no pass without a window"
    assert [len(part) for part in split([[one] for one in pieces(*[(50, 50)] * 6)], 2)] == [3, 3]
    assert passes([[some[:1], some[1:2]], [some[2:3], some[3:4]]]) == [[some[:1], some[1:2]], [some[2:3], some[3:4]]]


def test_rows_are_about_equally_long() -> None:
    some = pieces(*((number % 13 + 1, 3 * number % 11 + 1) for number in range(200)))
    for rows in (grouped(some, 16), balanced(some, 16)):
        assert sorted(id(one) for row in rows for one in row) == sorted(map(id, some)), "each once"
        totals = [sum(map(size, row)) for row in rows]
        assert max(totals) - min(totals) <= 4
    assert padding(balanced(some, 16)) < 0.03 < padding(grouped(some, 16))
    assert padding([[], []]) == 0
