"""What a trial costs: counted over the batches that it reads, by torch's counter and by Linux's."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pairform
from pairform.training.costs import trials as measures
from pairform.training.costs.trials import REPEATS, costs, memory_in_use, peak_memory, writing_seconds
from pairform.training.data.batches import collate, lengths_read
from tests.small_pairs import small_pair
from tests.studies.by_hand import planned, trained

ALONE: dict[str, Any] = {
    "assembly": "decoder_only",
    "encoder": None,
    "tie_embeddings": False,
    "head": {"tie": "decoder"},
    "decoder": {"depth": 2, "layer": {"branches": {"cross_attention": None}}},
}
VARIANTS: dict[str, dict[str, Any]] = {"pair": {}, "alone": ALONE}
FRESH = {"training": {"steps": 0}, "seeds": [0]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_costs_are_those_of_the_longest_batch(variant: str, tmp_path: Path) -> None:
    lookup = {"name": "lookup", "symbols": 6, "records": 2, "width": 2, "length": 40, "validation": 4}
    trial, examples = planned(tmp_path, FRESH | {"data": lookup}, VARIANTS[variant])
    spec = pairform.load_spec(dict(trial.spec))
    batch = collate(examples.train(0, 0, 1), spec)  # all are as long
    model = pairform.build(spec, seed=0, kernel="eager")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    cache = pairform.Cache()
    if spec.encoder is not None:
        inputs["decoder_input_ids"] = batch["labels"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, cache=cache)
    found = costs(spec, examples.lengths, "float32")
    assert found["flops"] == counter.get_total_flops() > 0
    assert found["cache_bytes"] == cache.bytes
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert trial.costs == found, "counted when the trial was planned"


LETTERS = "abcdefghij"
DATA: dict[str, dict[str, Any]] = {
    "pairs": {"name": "pairs", "train": ["train.jsonl"], "held_out": ["held.jsonl"], "lengths": [100, 100]},
    "spans": {
        "name": "text",
        "train": ["train.txt"],
        "held_out": ["held.txt"],
        "objective": {
            "name": "span_corruption",
            "window": 40,
            "denoisers": [{"span": 1.0, "rate": 0.5}, {"rate": 0.9}, {"span": 2.0, "rate": 0.1}],
        },
    },
    "prefix": {
        "name": "text",
        "train": ["train.txt"],
        "held_out": ["held.txt"],
        "objective": {"name": "prefix_lm", "source": 7, "target": 9},
    },
    "tasks": {"name": "copy", "symbols": 4, "length": [2, 5]},
}


def write_data(folder: Path) -> None:
    """Pairs of which the longest source and the longest target are of two examples, and the longest together of a third."""
    pairs = [(30, 1), (2, 25), (22, 20), (5, 5)]
    lines = [json.dumps({"source": "s" * source, "target": "t" * target}) for source, target in pairs]
    (folder / "train.jsonl").write_text("\n".join(lines))
    (folder / "held.jsonl").write_text(lines[-1])
    for name in ("train", "held"):
        (folder / f"{name}.txt").write_text(" ".join(LETTERS * 20))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_counted_is_as_long_as_the_longest_batch(variant: str, name: str, tmp_path: Path) -> None:
    write_data(tmp_path)
    data = DATA[name] | ({} if name == "tasks" else {"symbols": None, "length": None})
    trial, examples = planned(tmp_path, FRESH | {"base": {"vocabulary": 300}, "data": data}, VARIANTS[variant])
    spec = pairform.load_spec(dict(trial.spec))
    batch = collate([example for step in range(8) for example in examples.train(0, step, 16)], spec)
    read, written = batch["input_ids"].shape[1], batch["labels"].shape[1]
    assert lengths_read(spec, examples.lengths) == ((read, written) if spec.encoder is not None else (1, read))


def test_positions_that_end_within_source_and_target_are_refused(tmp_path: Path) -> None:
    """A decoder alone reads 12 + 1 + 13 tokens."""
    data = {"length": [12, 12]}
    for length in (25, 26):
        change = ALONE | {"decoder": ALONE["decoder"] | {"position": {"name": "learned", "length": length}}}
        if length == 26:
            planned(tmp_path, FRESH | {"data": data}, change)
            continue
        with pytest.raises(pairform.PairformError, match=r"variant 'one': positions: found the position 25"):
            planned(tmp_path, FRESH | {"data": data}, change)


@pytest.mark.parametrize("variant", VARIANTS)
def test_latency_is_that_of_the_longest_source_and_target(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    data = DATA["pairs"] | {"symbols": None, "length": None}
    trial, examples = planned(tmp_path, FRESH | {"base": {"vocabulary": 300}, "data": data}, VARIANTS[variant])
    seen: list[tuple[tuple[int, ...], int]] = []

    def generate(model: object, ids: torch.Tensor, mask: torch.Tensor, *, max_new_tokens: int, **_: Any) -> None:
        assert mask.all()
        seen.append((tuple(ids.shape), max_new_tokens))

    monkeypatch.setattr(pairform.Model, "generate", generate)
    # of a target, then of a first token: the first time is warming up, the least of the others counts
    times = iter([0.0, 1.0, 10.0, 12.0, 20.0, 23.0, 30.0, 34.0, 0.0, 0.1, 1.0, 1.75, 2.0, 2.5, 3.0, 4.0])
    monkeypatch.setattr(measures, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    assert len(examples.validation()[0][0]) == 5
    result = trained(trial, examples, latency=True)[1]
    assert (result["latency"], result["first_token_seconds"]) == (2.0, 0.5)
    read, written = ((1, 30), 26) if variant == "pair" else ((1, 22 + 1), 21)
    assert set(seen) == {(read, written), (read, 1)}


def test_memory_is_counted_from_the_start_of_training(tmp_path: Path) -> None:
    """What was held before, and is no more, does not hide what is held later."""
    large = torch.ones(64 << 20)
    del large
    before = memory_in_use("cpu")
    if before is None:
        pytest.skip("a system that does not say what a process holds")
    small = torch.ones(40 << 20)  # so large that it is always memory of its own
    peak = peak_memory("cpu")
    assert peak is not None
    assert small.numel() * 4 * 0.95 < peak - before < small.numel() * 4 * 1.5


def test_a_system_that_does_not_say_what_is_held_leaves_the_peak_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MARK", tmp_path / "missing" / "clear_refs")
    trial, examples = planned(tmp_path, FRESH)
    assert trained(trial, examples)[1]["peak_bytes"] is None


def test_what_is_held_is_read_out_of_the_systems_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a process has colons in its name."""
    monkeypatch.setattr(measures, "STATUS", tmp_path / "status")
    monkeypatch.setattr(measures, "MARK", tmp_path / "clear_refs")
    (tmp_path / "status").write_text("Name:\ta: b: c\nVmHWM:\t   90 kB\nVmRSS:\t   12 kB\n")
    assert (memory_in_use("cpu"), peak_memory("cpu")) == (12 * 1024, 90 * 1024)
    assert (tmp_path / "clear_refs").read_text() == "5", "Linux counts the peak anew"
    (tmp_path / "status").write_text("Name:\ta\n")
    assert (memory_in_use("cpu"), peak_memory("cpu")) == (None, None)


def test_latency_is_of_whole_texts_in_evaluation_mode() -> None:
    """Also of a model for which every token ends the text, and which is in training when it is measured."""
    spec = pairform.patch(small_pair(), {"tokens": {"eos": [*range(1, 97)]}})
    model = pairform.build(spec, seed=0).train()
    seen: list[tuple[bool, int]] = []
    assert model.decoder is not None
    model.decoder.register_forward_hook(lambda module, given, _: seen.append((module.training, given[0].ids.shape[1])))
    assert writing_seconds(model, [5, 6, 7], (4, 6)) > 0
    assert seen == [(False, 1)] * 6 * (REPEATS + 1)
