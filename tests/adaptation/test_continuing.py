"""What a run goes on with, and where it may be."""

import json
import math
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.registry import OutputError
from pairform.training.adaptation.run import adapt
from pairform.training.adaptation.run_folder import status_of
from pairform.training.data.corpus.prepare import prepare
from pairform.training.optimization.spikes import DivergedError
from pairform.training.step import gradients
from tests.adaptation.small_run import lines, write_run


def test_a_run_does_not_go_on_with_other_data_or_another_model(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"steps": 1})
    adapt(recipe, tmp_path / "run")
    spec = json.loads((tmp_path / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"decoder": spec["decoder"] | {"width": 48}}))
    with pytest.raises(OutputError, match="the spec of another model"):
        adapt(recipe, tmp_path / "run")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(corpus.read_text() * 2)
    prepare(tmp_path / "corpus.json", tmp_path / "shards", overwrite=True)
    with pytest.raises(OutputError, match="shards of the digest"):
        adapt(recipe, tmp_path / "run")


def test_a_run_that_was_killed_before_its_first_step_begins_again(tmp_path: Path) -> None:
    """While a file was written, and while a model was converted."""
    recipe, run = write_run(tmp_path, {"steps": 1}), tmp_path / "run"
    run.mkdir()
    for name in (".lock", ".recipe.json.partial-0123"):
        (run / name).write_text("")
    adapt(recipe, run)
    expected = lines(run)
    for name in ("spec.json", "data.json", "metrics.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints")
    assert lines(adapt(recipe, run)) == expected


def test_no_checkpoint_is_written_after_a_gradient_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights may be finite no longer, while the loss was: a run that resumed from them could never go on."""

    def measured(model: Any, batch: Any, *others: Any) -> Any:
        found = gradients(model, batch, *others)
        if len(lines(tmp_path / "run")) == 2:
            next(model.parameters()).grad.fill_(math.nan)
            found.norm.fill_(math.nan)
        return found

    monkeypatch.setattr("pairform.training.loop.gradients", measured)
    recipe = write_run(tmp_path, {"checkpoint": {"every": 1}})
    with pytest.raises(DivergedError, match="the gradient norm is nan at step 3"):
        adapt(recipe, tmp_path / "run")
    monkeypatch.undo()
    assert status_of(tmp_path / "run")["checkpoint"] == 2
    assert status_of(adapt(recipe, tmp_path / "run"))["status"] == "done"


def test_a_disk_without_room_for_the_checkpoints_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW's states and an average take three times the weights: two such checkpoints are kept, and one is written."""
    recipe = write_run(tmp_path, {"average": {"ema": 0.9}})
    model = pairform.build(tmp_path / "spec.json")
    size = 4 * 4 * sum(parameter.numel() for parameter in model.parameters())

    class Usage:
        free = 3 * size - 1

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(
        OutputError, match=f"{3 * size - 1:,} bytes free on its disk, expected {3 * size:,} bytes for 3 checkpoints"
    ):
        adapt(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_kept_out_of_the_shards(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="in the folder of the shards"):
        adapt(write_run(tmp_path), tmp_path / "shards" / "run")
    assert not (tmp_path / "shards" / "run").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"recipe.json/run: .*a file that can be written"):
        adapt(write_run(tmp_path), tmp_path / "recipe.json" / "run")


def test_a_full_disk_is_told_with_the_file_that_was_written(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"steps": 100, "checkpoint": {"every": 1000}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"run/metrics\.jsonl: found File too large"):
            adapt(recipe, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert lines(adapt(recipe, tmp_path / "run"))[-1]["step"] == 100


def test_numbers_that_are_not_finite_are_null_in_the_metrics(tmp_path: Path) -> None:
    patch = {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "clip": "none", "skip_step": {"window": 8}}
    with pytest.raises(DivergedError, match="in a row"):
        adapt(write_run(tmp_path, patch | {"steps": 60}), tmp_path / "run")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert lines(tmp_path / "run")[-1]["loss"] is None
