"""Studies at several sizes: a base scaled by one setting, ladders, and what they record.

The normal run kills a study a few times, others as often as the environment variable PAIRFORM_KILLS says.
"""

import csv
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.experiments.report import report
from pairform.experiments.results.ladder import ladder_results
from pairform.experiments.results.records import Trial, trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from tests.command_line.runner import CommandLine
from tests.forked import ended, kill_session, start_pairform
from tests.studies.small_study import lines, result, run, write_results, write_study

KILLS, SEED = int(os.environ.get("PAIRFORM_KILLS", "5")), 5
SIZES: dict[str, Any] = {
    "small": {"scale": {"width": 8}, "training": {"steps": 2}},
    "medium": {"scale": {"width": 16}, "training": {"steps": 4}},
    "large": {"scale": {"width": 24, "depth": 2}, "training": {"steps": 6}},
}
MEASURES = ("loss", "accuracy", "exact_match", "non_embedding_parameters", "training_tokens", "training_flops")


def planned(folder: Path, patch: dict[str, Any]) -> list[Trial]:
    study = read_study(write_study(folder, patch))
    return plan_trials(study, folder, gather(study, folder))


def test_a_base_is_scaled_by_one_setting(tmp_path: Path) -> None:
    """`extends`, then `scale`, then the other fields; as `pairform.scale` does in Python."""
    base = {"extends": "t5gemma-s-s", "vocabulary": 16, "scale": {"width": 64, "depth": 2}, "encoder": {"depth": 3}}
    file = write_study(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base": base}))
    scaled = pairform.scale("t5gemma-s-s", width=64, depth=2)
    expected = pairform.patch(scaled, {"vocabulary": 16, "encoder": {"depth": 3}})
    assert pairform.load_spec(read_study(file).model) == expected


def test_every_variant_is_run_at_every_size(tmp_path: Path) -> None:
    """Its own sizes are scaled by the same factors as the base's, so that a deep variant stays a deep one."""
    deep = {"decoder": {"depth": 3, "layer": {"branches": {"feed_forward": {"hidden": 16}}}}}
    trials = planned(tmp_path, {"variants": {"merged": None, "deep": deep}, "ladder": SIZES, "seeds": [0]})
    found = {
        (trial.variant, trial.rung): (
            trial.spec["decoder"]["width"],
            trial.spec["decoder"]["depth"],
            trial.spec["decoder"]["layer"]["branches"]["feed_forward"]["hidden"],
            trial.training.steps,
        )
        for trial in trials
    }
    assert found == {
        ("separate rung=small", "small"): (8, 1, 8, 2),
        ("separate rung=medium", "medium"): (16, 1, 16, 4),
        ("separate rung=large", "large"): (24, 2, 24, 6),
        ("deep rung=small", "small"): (8, 3, 16, 2),
        ("deep rung=medium", "medium"): (16, 3, 32, 4),
        ("deep rung=large", "large"): (24, 6, 48, 6),
    }


def test_sizes_and_a_grid_are_combined(tmp_path: Path) -> None:
    """Several numbers of tokens for each size identify L(N, D). The grid's values come after the size's."""
    trials = planned(tmp_path, {"ladder": SIZES, "grid": {"training.steps": [1, 3]}, "seeds": [0]})
    assert len(trials) == 2 * 3 * 2
    assert trials[1].variant == "separate rung=small steps=3"
    assert [trial.training.steps for trial in trials[:4]] == [1, 3, 1, 3]


def test_records_carry_the_size_parameters_tokens_and_compute(tmp_path: Path) -> None:
    """N without embeddings and head, D of sources and targets without padding, C of three forward passes."""
    trials = run(tmp_path, {"ladder": SIZES, "variants": {"merged": None}, "seeds": [0]}, jobs=2)
    assert {trial.rung: trial.status for trial in trials} == dict.fromkeys(SIZES, "done")
    for trial in trials:
        found, inspected = result(tmp_path, trial.name), pairform.inspect(dict(trial.spec), source_length=4, target_length=5)
        assert found["non_embedding_parameters"] == sum(inspected.parameters[part] for part in ("encoder", "decoder"))
        assert found["training_flops"] == 3 * inspected.flops["total"] * trial.training.steps * 4
        logged = [line for line in lines(tmp_path, trial.name) if line["split"] == "train"]
        assert found["training_tokens"] == logged[-1]["tokens"]
    laws = ladder_results(tmp_path / "study")
    assert [(each.variant, len(each.observations), each.multiplier) for each in laws] == [("separate", 3, None)]


def test_status_and_export_say_what_the_sizes_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairform_ = CommandLine(monkeypatch, capsys)
    ran = pairform_("study", "run", write_study(tmp_path, {"ladder": SIZES, "training": {"batch": 8}}), "--jobs", "2")
    assert ran.code == 0, ran
    words = " ".join(ran.out.split())
    assert "separate: L(C) = E + K / C^gamma over 6 trials" in words
    assert "merged: compute multiplier" in words
    found = json.loads(pairform_("study", "status", tmp_path / "study", "--json").out)["ladder"]
    assert [each["variant"] for each in found] == ["separate", "merged"]
    assert found[1]["multiplier"]["law"] == "compute"
    assert set(found[0]["law"]["parameters"]) == {"E", "K", "gamma"}
    pairform_("study", "export", tmp_path / "study", "--out", tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {row["rung"] for row in rows} == set(SIZES)
    assert all(float(row["training_flops"]) > 0 for row in rows)


def test_the_number_of_jobs_changes_no_record(tmp_path: Path) -> None:
    patch = {"ladder": SIZES, "variants": {"merged": None}, "seeds": [0]}
    (tmp_path / "one").mkdir()
    one, two = run(tmp_path / "one", patch), run(tmp_path / "two", patch, jobs=3)
    assert one == two
    assert records(tmp_path / "one") == records(tmp_path / "two")


def records(folder: Path) -> dict[str, Any]:
    """All that a study's trials recorded, without times, attempts and memory."""
    trials = {trial.name: trial for trial in trials_of(folder / "study")}
    return {
        name: (
            trial.model_copy(update={"attempts": 0}),
            {measure: result(folder, name)[measure] for measure in MEASURES},
            lines(folder, name),
        )
        for name, trial in trials.items()
    }


def test_a_ladder_that_is_killed_at_random_moments_leaves_the_records_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """SIGKILL reaches the study and its trials, of as many studies as the kills take."""
    training = {"steps": 8, "checkpoint_every": 2, "batch": 4, "log_every": 1, "evaluate_every": 4}
    sizes = {name: patch | {"training": {"steps": 2 * patch["training"]["steps"]}} for name, patch in SIZES.items()}
    patch = {"ladder": sizes, "training": training, "variants": {"merged": None}, "seeds": [0, 1]}
    run(tmp_path / "whole", patch)
    expected = records(tmp_path / "whole")
    moments = random.Random(SEED)
    kills = studies = 0
    while kills < KILLS:
        folder = tmp_path / str(studies)
        command, said = ("study", "run", write_study(folder, patch), "--jobs", "2"), folder / "said"
        begun = start_pairform(*command, said=said)
        while begun.is_alive() and kills < KILLS:
            begun.join(moments.uniform(0.2, 3.0))
            if begun.is_alive():
                kill_session(begun)
                kills += 1
                begun = start_pairform(*command, said=said)
        assert ended(begun) == 0, said.read_text()
        assert records(folder) == expected
        studies += 1
    print(f"seed {SEED}: {kills} kills in {studies} studies")


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too few sizes": ({"ladder": {"small": {}, "large": {}}}, ["ladder: found 2 sizes", "3 to 16"]),
    "with factors": (
        {"ladder": SIZES, "variants": None, "factors": {"one": {"a": {}, "b": {}}}},
        ["ladder: found a ladder and factors together"],
    ),
    "an unknown field": ({"ladder": SIZES | {"small": {"scale": {"wide": 8}}}}, ["rung=small", "scale.wide", "width"]),
    "no window to scale": (
        {
            "ladder": SIZES | {"small": {"scale": {"window": 4}}},
            "base": {"encoder": {"cycle": []}, "decoder": {"cycle": []}},
        },
        ["scale.window: found 4", "no sliding window"],
    ),
    "a base that is not scaled": ({"base": {"scale": {"width": 0}}}, ["base.scale.width: found 0"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scaled_is_refused(case: str, tmp_path: Path) -> None:
    patch, words = REFUSED[case]
    with pytest.raises(pairform.PairformError) as caught:
        run(tmp_path, patch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "study").exists()


def test_the_report_shows_the_sizes(tmp_path: Path) -> None:
    """A table and a chart, with names as text. A study of one size has no such section."""
    hostile = "<b onclick=alert(1)>"
    run(tmp_path, {"ladder": SIZES, "variants": {"merged": None, hostile: {"training": {"clip": 0.5}}}, "seeds": [0]}, jobs=2)
    page = report(tmp_path / "study").read_text()
    section = page[page.index('id="sizes"') : page.index('id="results"')]
    assert hostile not in page
    assert "&lt;b onclick=alert(1)&gt;" in section
    assert 'data-chart="ladder"' in section
    assert "L(C) = E + K / C^gamma" in section
    write_results(tmp_path / "one", {"separate": [1.0, 2.0]})
    assert 'id="sizes"' not in report(tmp_path / "one" / "study").read_text()


def test_the_plan_says_which_law_the_sizes_identify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = CommandLine(monkeypatch, capsys)
    ladder = write_study(tmp_path / "ladder", {"ladder": SIZES, "seeds": [0]})
    grid = write_study(tmp_path / "grid", {"ladder": SIZES, "seeds": [0], "grid": {"training.steps": [1, 2, 4]}})
    assert "The sizes identify L(C) = E + K / C^gamma." in command("study", "plan", ladder, "--no-time").out
    found = json.loads(command("study", "plan", grid, "--no-time", "--json").out)
    assert found["law"] == "parameters_tokens"
    assert set(found["variants"][0]["law"]) == {"non_embedding_parameters", "training_tokens", "training_flops"}
    assert found["comparisons"] == 3 * 3
