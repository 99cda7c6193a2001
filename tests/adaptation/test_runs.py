"""Runs of `adapt`: what they record, and that a resumed run gives the numbers of one that was never interrupted."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.registry import OutputError, SpecError
from pairform.training.adaptation.export import export
from pairform.training.adaptation.run import InterruptedRunError, adapt
from pairform.training.adaptation.run_folder import status_of
from pairform.training.data.corpus.prepare import prepare
from pairform.training.loop import Loop
from pairform.training.optimization.spikes import DivergedError
from tests.adaptation.small_run import EVALUATION, RECIPE, lines, terminate_in, trained, write_run
from tests.command_line.runner import CommandLine
from tests.corpus.small import word_tokenizer
from tests.forked import ended, start_pairform

SMALL_GEMMA = {
    "vocabulary": 300,
    "decoder": {
        "width": 32,
        "depth": 2,
        "cycle": [{}],
        "layer": {"branches": {"self_attention": {"heads": 2, "kv_heads": 1, "head_dim": 16}, "feed_forward": {"hidden": 64}}},
    },
}


def test_every_step_and_every_evaluation_has_a_line(tmp_path: Path) -> None:
    found = trained(tmp_path, EVALUATION)
    assert [(line["step"], line["split"]) for line in found if line["split"] == "train"] == [(n, "train") for n in range(1, 7)]
    assert [line["step"] for line in found if line["split"] == "valid"] == [2, 4, 6]
    assert all(line["tokens"] > 0 and line["gradient_norm"] > 0 for line in found if line["split"] == "train")
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 3
    status = status_of(tmp_path / "run")
    assert (status["status"], status["step"], status["checkpoint"]) == ("done", 6, 6)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-4", "step-6"]


def test_losses_fall(tmp_path: Path) -> None:
    found = trained(tmp_path, {"steps": 40, "optimizer": {"learning_rate": 0.01}, "checkpoint": {"every": 40}})
    assert sum(line["loss"] for line in found[-5:]) < 0.8 * sum(line["loss"] for line in found[:5])


@pytest.mark.parametrize(
    "patch",
    [
        EVALUATION,
        {"average": {"ema": 0.9}, "skip_step": {"window": 8}, "phases": [{"steps": 3, "train": ["*cross_attention*"]}]},
        {"optimizer": {"name": "muon", "learning_rate": 0.01}, "schedule": {"name": "wsd", "warmup": 1, "decay": 0.5}},
        {"data": RECIPE["data"] | {"objective": {"name": "span_corruption", "window": 24}}, "precision": "mixed"},
    ],
    ids=["evaluation", "phases", "muon", "spans"],
)
def test_a_run_that_a_signal_ended_resumes_to_the_same_numbers(
    tmp_path: Path, patch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_run(tmp_path, patch)
    whole = lines(adapt(recipe, tmp_path / "whole"))
    terminate_in(2, monkeypatch)
    with pytest.raises(InterruptedRunError, match="Run the same command to continue"):
        adapt(recipe, tmp_path / "run")
    monkeypatch.undo()
    samples = tmp_path / "run" / "samples.jsonl"
    if samples.exists():  # written after the last checkpoint, as by a process that was killed then
        samples.write_text(samples.read_text() + '{"step": 4, "source": "", "generated": ""}\n')
    assert status_of(tmp_path / "run")["checkpoint"] == 3
    assert lines(adapt(recipe, tmp_path / "run")) == whole
    assert not samples.exists() or samples.read_text() == (tmp_path / "whole" / "samples.jsonl").read_text()


def test_a_run_that_was_killed_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """Kills at seeded moments after the first line; steps since the last checkpoint are made again."""
    recipe = write_run(tmp_path, {"steps": 30, "checkpoint": {"every": 3}})
    whole = lines(adapt(recipe, tmp_path / "whole"))
    draws, killed = random.Random(5), 0
    for _ in range(3):
        process = start_pairform("adapt", "run", recipe, "--out", tmp_path / "run", said=tmp_path / "said")
        before = (tmp_path / "run" / "checkpoints").is_dir() and len(lines(tmp_path / "run"))
        while process.is_alive() and not ((tmp_path / "run" / "metrics.jsonl").exists() and before != len_of(tmp_path)):
            time.sleep(0.005)
        time.sleep(draws.uniform(0, 0.1))
        process.kill()
        killed += ended(process) == -signal.SIGKILL
    assert killed >= 1
    assert lines(adapt(recipe, tmp_path / "run")) == whole


def len_of(folder: Path) -> int:
    return len((folder / "run" / "metrics.jsonl").read_text().splitlines())


def test_parameters_outside_a_phase_do_not_change_and_have_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, torch.Tensor], set[str]]] = []
    step = Loop.step

    def watched(self: Loop, number: int, batch: Any) -> Any:
        line = step(self, number, batch)
        names: dict[Any, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        states = {names[parameter] for each in self.optimizers.each for parameter in each.state}
        seen.append(({name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}, states))
        return line

    monkeypatch.setattr(Loop, "step", watched)
    trained(tmp_path, {"phases": [{"steps": 3, "train": ["*cross_attention*"]}], "frozen": ["*norm*"]})
    start = pairform.build(tmp_path / "spec.json", seed=1).state_dict()
    for number, (weights, states) in enumerate(seen):
        changed = {name for name, weight in weights.items() if not torch.equal(weight.cpu(), start[name])}
        assert all("cross_attention" in name and "norm" not in name for name in changed | states) == (number < 3)
        assert not any("norm" in name for name in changed | states)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a typo": ({"stepz": 3}, "stepz"),
    "neither steps nor tokens": ({"steps": None}, "neither steps nor tokens"),
    "phase longer than the run": ({"phases": [{"steps": 7, "train": ["*"]}]}, "at most the recipe's 6"),
    "phase without parameters": (
        {"phases": [{"steps": 1, "train": ["crossattention"]}]},
        "phases.0..train.0..*matches a parameter",
    ),
    "no shards": ({"data": RECIPE["data"] | {"shards": "nowhere"}}, "nowhere"),
    "a batch below a row": ({"batch": {"tokens": 8}}, "at least one row"),
    "too few sentinels": (
        {"data": RECIPE["data"] | {"objective": {"name": "ul2", "window": 2048}}, "batch": {"tokens": 4096}},
        "sentinels",
    ),
    "keeps too few": ({"average": {"checkpoints": 5}}, "at least average.checkpoints, 5"),
    "two averages": ({"average": {"checkpoints": 2, "ema": 0.5}}, "one of ema and checkpoints"),
    "an unknown preset": ({"extends": "p1-prefixlmm"}, "p1-prefixlm"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_recipe_that_cannot_run_is_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    patch, said = BROKEN[case]
    recipe = write_run(tmp_path, patch)
    with pytest.raises(SpecError, match=said):
        adapt(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("patch", "head", "said"),
    [
        (EVALUATION, "lm", r"evaluation.generate: .*a model with a decoder"),
        ({"z_loss": 1e-4}, "masked_lm", r"z_loss: .*the head lm"),
    ],
)
def test_what_an_encoder_lacks_is_refused(tmp_path: Path, patch: dict[str, Any], head: str, said: str) -> None:
    encoder = {"assembly": "encoder_only", "decoder": None, "tie_embeddings": False, "head": {"name": head, "tie": "encoder"}}
    recipe = write_run(tmp_path, patch | {"data": RECIPE["data"] | {"objective": {"name": "masked", "window": 32}}})
    spec = pairform.patch(pairform.load_spec(tmp_path / "spec.json"), encoder)
    (tmp_path / "spec.json").write_text(json.dumps(spec.document()))
    with pytest.raises(SpecError, match=said):
        adapt(recipe, tmp_path / "run")


def test_a_shard_that_has_changed_is_refused(tmp_path: Path) -> None:
    """Unless the recipe says that it is not to be compared."""
    recipe = write_run(tmp_path)
    shard = tmp_path / "shards" / "000-train-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SpecError, match="SHA-256"):
        adapt(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"data": RECIPE["data"] | {"verify": False}}))
    adapt(recipe, tmp_path / "run")


def test_another_recipe_or_something_else_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"steps": 2})
    adapt(recipe, tmp_path / "run")
    before = lines(tmp_path / "run")
    with pytest.raises(OutputError, match="another recipe: seed is 1"):
        adapt(write_run(tmp_path, {"steps": 2, "seed": 2}), tmp_path / "run")
    assert lines(tmp_path / "run") == before
    with pytest.raises(OutputError, match="something that is no run"):
        adapt(recipe, tmp_path / "shards")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the loss is nan at step"):
        trained(tmp_path, {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "clip": "none", "steps": 20})
    assert status_of(tmp_path / "run")["status"] == "stopped"


def test_an_exported_run_is_the_model_that_it_trained(tmp_path: Path) -> None:
    """And one that started from a folder goes on from its weights, with its files beside them."""
    adapt(write_run(tmp_path, {"average": {"checkpoints": 2}}), tmp_path / "run")
    states = []
    chosen: dict[str, dict[str, Any]] = {"mean": {}, "four": {"step": 4, "average": False}, "six": {"average": False}}
    for name, options in chosen.items():
        states.append(pairform.load(export(tmp_path / "run", tmp_path / name, **options)).state_dict())
    averaged, four, six = states
    for name, tensor in averaged.items():
        torch.testing.assert_close(tensor, (four[name] + six[name]) / 2)
    assert any(not torch.equal(four[name], six[name]) for name in six)
    (tmp_path / "six" / "tokenizer_config.json").write_text("{}")
    adapt(write_run(tmp_path, {"model": str(tmp_path / "six"), "steps": 1, "schedule": {"warmup": 1}}), tmp_path / "more")
    first, before = lines(tmp_path / "more")[0]["loss"], lines(tmp_path / "run")[0]["loss"]
    assert first < before
    shutil.rmtree(tmp_path / "six")  # the run has kept its files
    again = export(tmp_path / "more", tmp_path / "again", format="transformers")
    assert (again / "tokenizer_config.json").read_text() == "{}"
    assert pairform.verify(again).ok


def test_a_model_from_new_weights_is_exported_with_the_tokenizer_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever the command is given: the recipe names its spec relative to where the run was started."""
    write_run(tmp_path)
    word_tokenizer(tmp_path / "tokenizer.json")
    corpus = json.loads((tmp_path / "corpus.json").read_text()) | {"tokenizer": "tokenizer.json"}
    (tmp_path / "corpus.json").write_text(json.dumps(corpus))
    prepare(tmp_path / "corpus.json", tmp_path / "words")
    recipe = json.loads((tmp_path / "recipe.json").read_text()) | {"model": "spec.json", "steps": 1}
    recipe["data"]["shards"] = "words"
    monkeypatch.chdir(tmp_path)
    adapt(recipe, "run")
    monkeypatch.chdir(tmp_path.parent)
    made = export(tmp_path / "run", tmp_path / "made")
    assert (made / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_moving_average_follows_the_weights(tmp_path: Path) -> None:
    adapt(write_run(tmp_path, {"average": {"ema": 0.5}, "checkpoint": {"every": 1, "keep": 9}, "steps": 3}), tmp_path / "run")
    wanted = pairform.build(tmp_path / "spec.json", seed=1).state_dict()
    for step in range(1, 4):
        weights = pairform.load(export(tmp_path / "run", tmp_path / f"step{step}", step=step, average=False)).state_dict()
        wanted = {name: 0.5 * tensor + 0.5 * weights[name] for name, tensor in wanted.items()}
    found = pairform.load(export(tmp_path / "run", tmp_path / "average")).state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name])


def test_a_conversion_is_made_once_and_adapted(tmp_path: Path) -> None:
    """A decoder-only source becomes both stacks; a resumed run does not convert again."""
    source = pairform.build(pairform.patch(pairform.load_spec("gemma-2-2b"), SMALL_GEMMA), seed=3)
    pairform.save(source, tmp_path / "gemma")
    convert = {"convert": {"encoder": str(tmp_path / "gemma"), "decoder": str(tmp_path / "gemma"), "seed": 2}}
    recipe = write_run(tmp_path, {"model": convert, "steps": 4, "phases": [{"steps": 2, "train": ["*cross_attention*"]}]})
    adapt(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "gemma")  # what was converted is kept
    initial = pairform.load(tmp_path / "run" / "initial").state_dict()
    moved = pairform.load(export(tmp_path / "run", tmp_path / "two", step=2)).state_dict()
    assert {name for name in initial if not torch.equal(initial[name], moved[name])} <= {n for n in initial if "cross_att" in n}
    assert status_of(adapt(recipe, tmp_path / "run"))["status"] == "done"


def test_the_command_line_tells_of_a_diverged_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_run(tmp_path, {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "clip": "none", "steps": 20})
    result = CommandLine(monkeypatch, capsys)("adapt", "run", str(recipe), "--out", str(tmp_path / "run"))
    assert result.code == 1
    assert "the loss is nan at step" in result.err
    assert "Lower optimizer.learning_rate" in result.err
