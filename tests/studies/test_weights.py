"""Studies whose trials start from checkpoints and conversions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.experiments.execution.run import prepare, run_study
from pairform.experiments.execution.trial import train
from pairform.experiments.execution.worker import Work, run_trial
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.records import Trial, result_of, trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.experiments.study.spec import StudySpec
from pairform.registry import OutputError, PairformError, merge_patch
from pairform.training.data.batches import Examples
from tests.checkpoints import t5gemma
from tests.command_line.runner import CommandLine
from tests.command_line.runner import document as document_of
from tests.initialisation.small_models import alone, paired, saved, stack
from tests.small_vision import document
from tests.studies.by_hand import kept_settings, validated

FRESH: dict[str, Any] = {
    "name": "which initialisation adapts best",
    "base": "pair",
    "training": {"steps": 0, "batch": 4},
    "data": {"name": "copy", "symbols": 8, "length": [2, 4], "validation": 4},
    "seeds": [0],
}
CONVERT = {"convert": {"encoder": "large", "decoder": "small"}}
WARM_UP: dict[str, Any] = {"training": {"steps": 2, "phases": [{"steps": 2, "train": ["*cross_attention*"]}]}}
PAIR = paired(stack(2, causal=False), stack(2, cross={}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two sources of unequal widths and a pair."""
    saved(tmp_path / "large", alone(stack(2)))
    saved(tmp_path / "small", alone(stack(2) | {"width": 16}), seed=1)
    saved(tmp_path / "pair", PAIR)
    return tmp_path


def planned(folder: Path, patch: dict[str, Any]) -> tuple[StudySpec, dict[str, Trial], Examples]:
    """The study in a file of `folder`, its trials by name, and what the first learns from."""
    file = folder / "study.json"
    file.write_text(json.dumps(merge_patch(FRESH, patch)))
    study = read_study(file)
    contents = gather(study, folder)
    trials = {trial.name: trial for trial in plan_trials(study, folder, contents)}
    return study, trials, contents.open(pairform.load_spec(dict(next(iter(trials.values())).spec)))


def prepared(folder: Path, patch: dict[str, Any]) -> list[Trial]:
    """The trials, and the study's folder with them."""
    study, trials, _ = planned(folder, patch)
    (folder / "study").mkdir()
    prepare(folder / "study", study, list(trials.values()), retry=False)
    return list(trials.values())


def ran(folder: Path, patch: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The results of each trial, run in this process."""
    with kept_settings():
        for trial in prepared(folder, patch):
            run_trial(Work(folder / "study", folder), trial.name)
    trials = trials_of(folder / "study")
    assert [trial.error for trial in trials] == [None] * len(trials)
    return {trial.name: result_of(folder / "study", trial.name) for trial in trials}


def loss_of(model: pairform.Model, examples: Examples) -> Any:
    return pytest.approx(validated(model.float(), examples.validation())["loss"], rel=1e-5)


def test_a_folder_of_transformers_is_where_trials_start(folder: Path) -> None:
    t5gemma(folder / "theirs", initializer_range=0.3)
    patch = {"base": "theirs", "variants": {"trained": {}, "new": {"weights": "new"}}}
    _, trials, examples = planned(folder, patch)
    results = ran(folder, patch)
    assert results["trained-seed0"]["loss"] == loss_of(pairform.load(folder / "theirs"), examples)
    assert results["new-seed0"]["loss"] == loss_of(pairform.build(pairform.load_spec(folder / "theirs"), seed=0), examples)
    assert results["trained-seed0"]["carried_parameters"] == results["trained-seed0"]["parameters"]
    assert "carried_parameters" not in results["new-seed0"]
    assert [source.name for source in trials["trained-seed0"].sources] == ["theirs/model.safetensors"]


def test_the_plan_shows_how_many_parameters_each_variant_keeps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = {"base": CONVERT, "variants": {"converted": {}, "new": {"weights": "new"}}}
    _, trials, _ = planned(folder, patch)
    kept = trials["converted-seed0"].carried
    assert kept is not None
    command = CommandLine(monkeypatch, capsys)
    found = document_of(command("study", "plan", folder / "study.json", "--no-time", "--json"))
    carried = {row["name"]: row["carried_parameters"] for row in found["variants"]}
    assert carried == {"converted": kept.parameters, "new": None}
    converted, new = [
        line.split() for line in command("study", "plan", folder / "study.json", "--no-time").out.splitlines()[1:3]
    ]
    assert (converted[-1], new[-1]) == (f"{kept.parameters:,}", "0")


def test_variants_of_a_conversion_start_as_convert_makes_them(folder: Path) -> None:
    """A patch on the model is the conversion's, and newly initialised tensors follow the trial's seed."""
    merged = {"bridge": {"name": "linear"}, "weights": {"convert": {"source_attention": "merged"}}}
    mqa = {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}}
    fixed = {"weights": {"convert": {"seed": 7, "cross_attention": "random"}}}
    variants = {"converted": {}, "new": {"weights": "new"}, "merged": merged, "mqa": mqa, "fixed": fixed}
    patch = {"base": CONVERT, "variants": variants, "seeds": [3]}
    _, _, examples = planned(folder, patch)
    results = ran(folder, patch)
    given: dict[str, dict[str, Any]] = {
        "converted": {},
        "merged": {"source_attention": "merged", "patch": {"bridge": {"name": "linear"}}},
        "mqa": {"patch": mqa},
        "fixed": {"seed": 7, "cross_attention": "random"},
    }
    for name, fields in given.items():
        options: dict[str, Any] = {"seed": 3, "dtype": "float32"} | fields
        report = pairform.convert(encoder=folder / "large", decoder=folder / "small", out=folder / name, **options)
        assert results[f"{name}-seed3"]["loss"] == loss_of(pairform.load(folder / name), examples)
        carried = [report.plan.totals[kind]["parameters"] for kind in ("copied", "derived")]
        assert results[f"{name}-seed3"]["carried_parameters"] == sum(carried)
    assert results["new-seed3"]["loss"] == loss_of(pairform.build(pairform.load_spec(folder / "converted"), seed=3), examples)


def test_what_fits_is_carried_over(folder: Path) -> None:
    """The rest is new, by the trial's seed. Overrides stay with the layers that they had, as in `carry`."""
    wide = {"decoder": {"layer": {"branches": {"feed_forward": {"hidden": 40}}}}, "encoder": {"depth": 1}}
    variants = {"same": {}, "wide": wide}
    patch = {"variants": variants, "seeds": [5]}
    _, trials, examples = planned(folder, patch)
    results = ran(folder, patch)
    model, plan = pairform.carry(pairform.load(folder / "pair", dtype=torch.float32), patch=wide, seed=5)
    assert results["wide-seed5"]["loss"] == loss_of(model, examples)
    carried = trials["wide-seed5"].carried
    assert carried is not None
    totals = plan.totals
    assert (carried.tensors, carried.new_tensors) == (totals["copied"]["tensors"], totals["fresh"]["tensors"])
    assert 0 < carried.new_parameters == totals["fresh"]["parameters"]


def test_a_conversion_makes_the_spec_of_the_base(folder: Path) -> None:
    base = pairform.plan(encoder=folder / "large", decoder=folder / "small").spec.document()
    base["decoder"]["layer"]["branches"]["feed_forward"]["name"] = "gated"
    _, trials, _ = planned(folder, {"base": base, "variants": {"new": {}, "converted": {"weights": CONVERT}}})
    new, converted = trials.values()
    assert new.spec == converted.spec
    assert new.carried is None
    assert converted.carried is not None
    assert converted.carried.new_tensors > 0


def test_the_grid_has_choices_of_the_conversion(folder: Path) -> None:
    grid = {"weights.convert.cross_attention": ["random", "zero_output"]}
    _, trials, _ = planned(folder, {"base": CONVERT, "grid": grid})
    modes = [trial.weights["convert"]["cross_attention"] for trial in trials.values() if not isinstance(trial.weights, str)]
    assert modes == ["random", "zero_output"]


def test_a_phase_trains_only_its_parameters(folder: Path) -> None:
    """As in an adaptation: the warm-up of cross-attention is a variant."""
    _, trials, examples = planned(folder, {"variants": {"warm-up": WARM_UP}})
    model = pairform.load(folder / "pair", dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with kept_settings():
        train(trials["warm-up-seed0"], examples, False, lambda line: None, initial=lambda device: model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("cross_attention" in name for name in changed)


def test_a_phase_leaves_a_frozen_tower_frozen(folder: Path) -> None:
    """Also after its end, where all other parameters train."""
    phases = [{"steps": 1, "train": ["*cross_attention*"]}]
    training = {"steps": 2, "phases": phases, "frozen": ["*embedding*"]}
    words = {"symbols": 3}  # fewer than there are ids before the image token
    _, trials, examples = planned(folder, {"base": document(), "training": training, "data": words})
    model = pairform.build(document(), seed=0)
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert fixed
    with kept_settings():
        train(trials["base-seed0"], examples, False, lambda line: None, initial=lambda device: model)
    found = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert found == fixed | {name for name, _ in model.named_parameters() if "embedding" in name}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a folder that is missing": ({"variants": {"one": {"weights": "nowhere"}}}, "weights: found 'nowhere', no such folder"),
    "a base that is missing": ({"base": "nowhere"}, "no preset, file or folder"),
    "a file": ({"weights": "study.json"}, "a file, expected the folder"),
    "weights of another model": (
        {
            "base": {"extends": "t5gemma-s-s", "vocabulary": 16, "encoder": {"width": 8}, "decoder": {"width": 8}},
            "weights": "pair",
        },
        "variant 'base': weights: found no tensor of 'pair' fits the model",
    ),
    "an option that convert does not have": ({"base": {"convert": {"encoders": "large"}}}, r"base.convert.encoders"),
    "a source that is missing": ({"weights": {"convert": {"encoder": "large"}}}, "variant 'base': decoder: found no source"),
    "a number": ({"variants": {"one": {"weights": 3}}}, "variant 'one': weights: found 3"),
    "a phase of no parameter": (
        {"training": {"steps": 2, "phases": [{"steps": 1, "train": ["*crossattention*"]}]}},
        r"variant 'base': training.phases\[0\].train\[0\]: found '\*crossattention\*'",
    ),
    "a phase in which nothing trains": (
        {"training": {"steps": 2, "phases": [{"steps": 1, "train": ["*embedding*"]}], "frozen": ["*embedding*"]}},
        r"variant 'base': training.phases\[0\].train: found no parameter that trains",
    ),
    "phases that are too long": (
        {"variants": {"one": {"training": {"phases": [{"steps": 9, "train": ["*"]}]}}}},
        "variant 'one': training.phases: found 9 steps, expected at most training.steps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_study_that_cannot_run_is_refused_before_its_first_trial(folder: Path, case: str) -> None:
    patch, message = REFUSED[case]
    with pytest.raises(PairformError, match=message):
        planned(folder, patch)


def test_a_folder_with_a_spec_alone_is_a_spec(folder: Path) -> None:
    (folder / "pair" / "model.safetensors").unlink()
    study, trials, _ = planned(folder, {})
    assert (study.weights, [trial.weights for trial in trials.values()]) == ("new", ["new"])


def test_other_contents_of_the_weights_are_refused(folder: Path) -> None:
    """When the study is run again, and by a trial that was planned before."""
    prepared(folder, {})
    shutil.rmtree(folder / "pair")
    saved(folder / "pair", PAIR, seed=9)
    with kept_settings():
        run_trial(Work(folder / "study", folder), "base-seed0")
    (trial,) = trials_of(folder / "study")
    assert trial.status == "failed"
    assert "other contents" in str(trial.error)
    with pytest.raises(OutputError, match=r"trials from other contents of pair/model\.safetensors"):
        run_study(read_study(folder / "study.json"), folder / "study", source=folder)


def test_a_study_folder_of_an_earlier_version_is_read_and_resumed(folder: Path) -> None:
    """It says nothing of weights, phases or checkpoints."""
    results = ran(folder, {"base": PAIR})
    out = folder / "study"
    for file, dropped in (("study.json", ("weights",)), ("trials/base-seed0/trial.json", ("weights", "carried", "sources"))):
        recorded = json.loads((out / file).read_text())
        for name in dropped:
            del recorded[name]
        for name in ("phases", "frozen", "checkpoint_every"):
            recorded["training"].pop(name, None)
        (out / file).write_text(json.dumps(recorded))
    run_study(read_study(folder / "study.json"), out, source=folder)
    (trial,) = trials_of(out)
    assert (trial.status, trial.attempts, trial.weights) == ("done", 1, "new")
    (variant,) = read_report(out).variants
    assert variant.differences == {}
    assert variant.seeds[0] == results["base-seed0"]
