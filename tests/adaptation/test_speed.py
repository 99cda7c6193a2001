"""Throughput and model FLOPs utilisation in the metrics and the status of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.training.adaptation.run import adapt
from pairform.training.adaptation.run_folder import status_of
from pairform.training.costs.throughput import Throughput, longest_rows, read_lengths, row_lengths
from pairform.training.data.objectives import CausalLM, Lengths, Masked, Objective, PrefixLM, SequencePairs, SpanCorruption
from tests.adaptation.small_run import write_run


def train_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_lines_have_the_speed_since_the_line_before(tmp_path: Path) -> None:
    run = adapt(write_run(tmp_path, {"logging": {"peak_tflops": 0.5}}), tmp_path / "run")
    found = train_lines(run)
    forward = pairform.inspect(tmp_path / "spec.json", source_length=16, target_length=16).flops["total"]
    tokens, seconds = 0, 0.0
    for line in found:
        assert line["tokens_per_second"] == pytest.approx((line["tokens"] - tokens) / (line["seconds"] - seconds))
        assert line["flops_per_second"] == pytest.approx(3 * forward / 32 * line["tokens_per_second"])
        assert line["mfu"] == pytest.approx(line["flops_per_second"] / 0.5e12)
        tokens, seconds = line["tokens"], line["seconds"]
    status = status_of(run)
    assert status["mfu"] == pytest.approx(3 * forward / 32 * tokens / seconds / 0.5e12, rel=0.1, abs=1e-4)


def test_a_device_of_unknown_peak_has_no_utilisation(tmp_path: Path) -> None:
    run = adapt(write_run(tmp_path, {"steps": 2, "device": "cpu"}), tmp_path / "run")
    assert all("mfu" not in line and line["flops_per_second"] > 0 for line in train_lines(run))
    assert status_of(run)["mfu"] is None


def test_a_resumed_run_counts_from_where_it_resumes() -> None:
    """Not from the beginning, which would count the tokens of earlier processes in the first line."""
    throughput = Throughput(per_token=10.0, peak=1000.0, tokens=500, seconds=50.0)
    assert throughput.since(600, 52.0) == {"tokens_per_second": 50.0, "flops_per_second": 500.0, "mfu": 0.5}
    assert throughput.since(700, 57.0)["tokens_per_second"] == 20.0


@pytest.mark.parametrize(
    ("objective", "pair", "alone"),
    [
        (CausalLM(name="causal_lm", window=32), None, (32, 32)),
        (Masked(name="masked", window=32), (32, 32), None),
        (SequencePairs(name="pairs", source=20, target=12), (20, 12), (1, 33)),
        (PrefixLM(name="prefix_lm", source=20, target=12), (20, 12), (1, 33)),
        (PrefixLM(name="prefix_lm", source=20, target=12, split="uniform"), (16, 16), (1, 33)),
    ],
)
def test_a_row_is_as_long_as_the_objective_makes_it(objective: Objective, pair: Lengths | None, alone: Lengths | None) -> None:
    ((share, lengths),) = row_lengths(objective)
    assert share == 1
    for preset, expected in (("t5gemma-s-s", pair), ("gemma-3-270m", alone)):
        assert expected in (None, read_lengths(pairform.load_spec(preset), objective, lengths))


def test_the_rows_of_a_mixture_are_weighted() -> None:
    objective = SpanCorruption(name="ul2", window=1024)
    rows = row_lengths(objective)
    assert [share for share, _ in rows] == pytest.approx([1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 2])
    assert longest_rows(objective) == [max(objective.lengths), (257, 770)]
