"""Variants that are scaled towards the size of the first."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.experiments.execution.run import prepare, run_study
from pairform.experiments.report.reading import read_report
from pairform.experiments.results.export import export
from pairform.experiments.study.contents import gather
from pairform.experiments.study.factor_results import factor_results
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.experiments.study.size_matching import known_matches
from tests.command_line.runner import CommandLine
from tests.studies.small_study import result, run, write_study

FRESH: dict[str, Any] = {"training": {"steps": 0}, "seeds": [0]}
WIDER = {"base": {"encoder": {"layer": {"branches": {"feed_forward": {"hidden": 64}}}}}}
HIDDEN = "layer.branches.feed_forward.hidden"


def hidden(spec: Any) -> list[int]:
    """The sizes of encoder and decoder."""
    return [spec[stack]["layer"]["branches"]["feed_forward"]["hidden"] for stack in ("encoder", "decoder")]


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_a_variant_is_brought_as_near_as_the_multiple_allows(by: str, tmp_path: Path) -> None:
    """Both stacks' sizes keep their ratio, and one step of the multiple more or less is further off."""
    match = {"by": by, "tolerance": 0.05, "multiple": 2}
    second, first = run(tmp_path, FRESH | WIDER | {"match": match})
    assert first.match is None
    assert hidden(first.spec) == [64, 8]
    assert second.match is not None
    counts = [result(tmp_path, trial.name)[by] for trial in (first, second)]
    assert counts == [second.match.wanted, second.match.found]
    large, small = hidden(second.spec)
    assert large > 64
    assert small == 2 * round(large / 2 / 8)
    assert second.patches[-1] == {
        "encoder": {"layer": {"branches": {"feed_forward": {"hidden": large}}}},
        "decoder": {"layer": {"branches": {"feed_forward": {"hidden": small}}}},
    }
    near = []
    for step in (-2, 0, 2):
        sizes = [large + step, 2 * round((large + step) / 2 / 8)]
        patch = {
            stack: {"layer": {"branches": {"feed_forward": {"hidden": size}}}}
            for stack, size in zip(("encoder", "decoder"), sizes, strict=True)
        }
        spec = pairform.patch(pairform.load_spec(dict(second.spec)), patch)
        inspected = pairform.inspect(spec, source_length=4, target_length=5)
        near.append(abs(getattr(inspected, by)["total"] - counts[0]))
    assert min(near) == near[1]


def test_each_point_of_the_grid_is_matched_with_its_own(tmp_path: Path) -> None:
    match = {"by": "parameters", "tolerance": 0.05, "multiple": 1}
    trials = run(tmp_path, FRESH | {"match": match, "grid": {"decoder.depth": [1, 2]}})
    counts = {trial.variant: result(tmp_path, trial.name)["parameters"] for trial in trials}
    assert counts["merged depth=1"] == pytest.approx(counts["separate depth=1"], rel=0.05)
    assert counts["merged depth=2"] == pytest.approx(counts["separate depth=2"], rel=0.05)
    assert counts["separate depth=2"] > 1.3 * counts["separate depth=1"]


def test_status_says_how_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_study(tmp_path, FRESH | {"match": {"by": "parameters", "tolerance": 0.1}})
    ran = CommandLine(monkeypatch, capsys)("study", "run", file)
    assert ran.code == 0, ran
    (line,) = [line for line in ran.out.splitlines() if line.startswith("merged ")]
    assert re.search(r" parameters [+-]\d\.\d\d% \(tolerance 10%\)$", line)
    status = CommandLine(monkeypatch, capsys)("study", "status", tmp_path / "study", "--json")
    rows = json.loads(status.out)["variants"]
    assert ["match" in row for row in rows] == [False, True]
    assert abs(rows[1]["match"]["difference"]) <= 0.1


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too coarse": (
        {"match": {"by": "parameters", "tolerance": 0.001, "multiple": 64}},
        ["variant 'merged': match", "at the closest", "0.10%"],
    ),
    "nothing to change": (
        {"match": {"by": "flops", "paths": ["decoder.layer.branches.experts.hidden"]}},
        ["variant 'merged': match.paths", "decoder.layer.branches.experts.hidden"],
    ),
    "nothing to match": ({"match": {"by": "flops"}, "variants": {"merged": None}}, ["match: found one variant"]),
    "larger with the least feed-forward": (
        {"match": {"by": "parameters"}, "variants": {"merged": None, "deep": {"decoder": {"depth": 8}}}},
        ["variant 'deep': match", "at the closest, +"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_matched_is_refused(case: str, tmp_path: Path) -> None:
    patch, words = REFUSED[case]
    with pytest.raises(pairform.PairformError) as caught:
        run(tmp_path, FRESH | patch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "study").exists()


def timer(monkeypatch: pytest.MonkeyPatch, scale: float = 1.0) -> list[int]:
    """A step takes a second for each million parameters, and more each time it is timed, as on a machine that gets slower.

    Returns:
        The parameters of the models that were timed.
    """
    timed: list[int] = []

    def step_seconds(spec: pairform.ModelSpec, *_: Any, **__: Any) -> float:
        timed.append(pairform.inspect(spec, source_length=4, target_length=5).parameters["total"])
        return scale * timed[-1] * 1e-6 * (1 + 1e-5 * len(timed))

    monkeypatch.setattr("pairform.experiments.study.size_matching.step_seconds", step_seconds)
    return timed


TIMED = {"by": "seconds", "multiple": 2}


def test_sizes_are_matched_by_measured_time_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the first run are kept: a machine on which time grows otherwise changes nothing, and nothing is timed."""
    timer(monkeypatch)
    trials = run(tmp_path, FRESH | WIDER | {"match": TIMED})
    second, first = trials
    assert second.match is not None
    assert second.match.matched
    counts = [result(tmp_path, trial.name)["parameters"] for trial in (first, second)]
    assert counts[1] == pytest.approx(counts[0], rel=0.05)
    assert second.match.wanted == pytest.approx(counts[0] * 1e-6, rel=0.01)
    later = timer(monkeypatch, scale=7.0)
    more = run(tmp_path, FRESH | WIDER | {"match": TIMED | {"tolerance": 0.1}, "seeds": [0, 1]})
    assert not later
    assert {trial.name for trial in more if trial.seed == 0} == {trial.name for trial in trials}
    patches = {(trial.variant, trial.patches, trial.match and trial.match.found) for trial in more}
    assert patches == {(trial.variant, trial.patches, trial.match and trial.match.found) for trial in trials}


def test_a_variant_that_is_added_later_is_timed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer(monkeypatch)
    run(tmp_path, FRESH | WIDER | {"match": TIMED})
    later = timer(monkeypatch)
    added = {"variants": {"deep": {"decoder": {"depth": 2}}}}
    trials = {trial.variant: trial for trial in run(tmp_path, FRESH | WIDER | added | {"match": TIMED})}
    assert later
    assert trials["deep"].match is not None
    assert trials["deep"].match.matched


def test_other_settings_of_time_matching_need_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer(monkeypatch)
    run(tmp_path, FRESH | WIDER | {"match": TIMED})
    with pytest.raises(pairform.PairformError, match="trials that this study does not plan"):
        run(tmp_path, FRESH | WIDER | {"match": TIMED | {"multiple": 8}})


def test_real_steps_are_timed(tmp_path: Path) -> None:
    match = {"by": "seconds", "unmatched": "flag"}
    second, _ = run(tmp_path, FRESH | WIDER | {"match": match})
    assert second.match is not None
    assert 0 < second.match.wanted < 1


FLAGGED: dict[str, dict[str, Any]] = {
    "larger at the least": {"variants": {"merged": None, "deep": {"decoder": {"depth": 8}}}},
    "nothing to change": {
        "variants": {"merged": None, "deep": {"decoder": {"depth": 8}}},
        "match": {"paths": ["decoder.none"]},
    },
}


@pytest.mark.parametrize("case", FLAGGED)
def test_a_variant_that_stays_unmatched_is_flagged_wherever_it_is_compared(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = {"by": "parameters", "unmatched": "flag"} | FLAGGED[case].get("match", {})
    variants = {"merged": None, "deep": {"decoder": {"depth": 8}}}
    file = write_study(tmp_path, FRESH | {"match": match, "variants": variants, "seeds": [0, 1, 2]})
    command = CommandLine(monkeypatch, capsys)
    ran = command("study", "run", file)
    assert ran.code == 0, ran
    (line,) = [line for line in ran.out.splitlines() if line.startswith("deep ")]
    assert re.search(r" parameters \+\d+\.\d\d% \(tolerance 1%\) not matched$", line)
    (finding,) = [line for line in ran.out.splitlines() if line.startswith("deep: ")]
    assert re.search(r"\. Not matched: parameters \+\d+\.\d\d%, which may explain a difference\.$", finding)
    row = json.loads(command("study", "status", tmp_path / "study", "--json").out)["variants"][1]
    assert row["match"]["matched"] is False
    found = read_report(tmp_path / "study")
    assert all("Not matched" in sentence for sentence in found.variants[1].findings.values())
    assert "not within the study's tolerance" in found.variants[1].matched
    with export(tmp_path / "study", tmp_path / "out.csv").open(newline="", encoding="utf-8") as file_of_trials:
        rows = [(row["variant"], row["match.by"], row["match.matched"]) for row in csv.DictReader(file_of_trials)]
    assert sorted(set(rows)) == [("deep", "parameters", "False"), ("separate", "", "")]


def test_effects_of_factors_say_that_a_combination_is_not_matched(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"decoder": {"depth": 8}}
    change = {"factors": {"depth": {"one": {}, "eight": deep}}, "match": {"by": "parameters", "unmatched": "flag"}}
    file = write_study(tmp_path, FRESH | change | {"seeds": [0, 1, 2]})
    document = json.loads(file.read_text())
    del document["variants"]
    file.write_text(json.dumps(document))
    run_study(read_study(file), tmp_path / "study", source=tmp_path)
    losses = factor_results(tmp_path / "study")[0]
    assert losses.unmatched == ("depth=eight",)
    assert losses.aliased(["depth"]) == " Not matched in size: 1 of the combinations."


def test_a_learning_rate_does_not_change_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is tuned, although each timing differs; a batch in a grid does. Also after an interruption."""
    rates = {"training.optimizer.learning_rate": [0.1, 0.2]}
    timer(monkeypatch)
    swept = FRESH | WIDER | {"match": TIMED, "grid": {"training.batch": [4, 8]}, "tune": rates, "tune_seeds": [9]}
    study = read_study(write_study(tmp_path, swept))
    out = tmp_path / "study"
    planned = plan_trials(study, tmp_path, gather(study, tmp_path))
    sizes = {(trial.training.batch, trial.match) for trial in planned if trial.match is not None}
    assert len(sizes) == 2, "one for each batch"
    assert len({found for _, found in sizes}) == 2
    out.mkdir()
    prepare(out, study, planned[:7], retry=False)  # one of each size
    timer(monkeypatch, scale=3.0)
    again = plan_trials(study, tmp_path, gather(study, tmp_path), known_matches(out, study))
    assert [trial.plan for trial in again] == [trial.plan for trial in planned]


def test_a_plan_says_what_was_changed_and_what_stays_unmatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = {"by": "parameters", "tolerance": 0.05, "multiple": 2, "unmatched": "flag"}
    file = write_study(tmp_path, WIDER | {"match": match, "variants": {"deep": {"decoder": {"depth": 8}}}})
    command = CommandLine(monkeypatch, capsys)
    planned = json.loads(command("study", "plan", file, "--no-time", "--json").out)
    first, merged, deep = (row["match"] for row in planned["variants"])
    assert first is None
    assert merged["matched"]
    assert not deep["matched"]
    assert set(merged["changed"]) == {f"encoder.{HIDDEN}", f"decoder.{HIDDEN}"}
    before, after = merged["changed"][f"encoder.{HIDDEN}"]
    assert before == 64
    study = read_study(file)
    trial = next(trial for trial in plan_trials(study, tmp_path, gather(study, tmp_path)) if trial.match)
    assert hidden(trial.spec)[0] == after
    lines = command("study", "plan", file, "--no-time").out.splitlines()
    assert lines[0].split()[-3:] == ["size", "vs", "first"]
    assert re.search(r" parameters [+-]\d\.\d\d% \(tolerance 5%\) *$", lines[2])
    (changed,) = [line for line in lines if line.startswith("merged: ")]
    assert changed.startswith(f"merged: encoder.{HIDDEN} 64 -> {after}, decoder.{HIDDEN} 8 -> ")
    (left,) = [line for line in lines if line.startswith("deep: ")]
    assert re.search(r"\. Not matched: parameters \+\d+\.\d\d%, which may explain a difference\.$", left)
