"""A part of a large grid, chosen by Optuna."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pairform
from pairform.experiments.results.records import TrialFolder, trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import read_study
from pairform.experiments.study.search import Search, pick
from pairform.registry.run_folders import write_json
from tests.studies.small_study import result, run, write_study

pytest.importorskip("optuna")
GRID = {"decoder.depth": [1, 2, 3], "training.optimizer.learning_rate": [0.0001, 0.01, 0.1], "initializer_range": [0.05, 0.1]}
SEARCH: dict[str, Any] = {"grid": GRID, "search": {"points": 4, "seed": 3}, "seeds": [0], "training": {"steps": 1}}


def points(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "study" / "search.json").read_text())
    return found


def test_points_of_the_grid_are_run_with_every_seed(tmp_path: Path) -> None:
    trials = run(tmp_path, SEARCH | {"seeds": [0, 1]}, jobs=2)
    chosen = points(tmp_path)
    assert len(chosen) == 4
    different = {json.dumps(each["point"]) for each in chosen}
    assert len(trials) == 2 * len(different)
    assert {trial.status for trial in trials} == {"done"}
    for each in chosen:
        variant = each["point"].pop("variant")
        values = [f"{path.rpartition('.')[2]}={value}" for path, value in each["point"].items()]
        own = [trial for trial in trials if trial.variant == " ".join([variant, *values])]
        assert each["loss"] == pytest.approx(sum(result(tmp_path, trial.name)["loss"] for trial in own) / 2)
        assert own[0].spec["decoder"]["depth"] == json.loads(each["point"]["decoder.depth"])


def test_a_search_that_was_killed_goes_on_to_the_same_points(tmp_path: Path) -> None:
    run(tmp_path / "whole", SEARCH)
    ends = 0

    def killed(trial: object) -> None:
        nonlocal ends
        ends += 1
        if ends == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", SEARCH, report=killed)
    assert len(points(tmp_path / "killed")) < 4
    run(tmp_path / "killed", SEARCH)
    assert points(tmp_path / "killed") == points(tmp_path / "whole")
    assert {trial.attempts for trial in trials_of(tmp_path / "killed" / "study")} == {1}
    run(tmp_path / "killed", SEARCH | {"search": {"points": 5, "seed": 3}})
    assert points(tmp_path / "killed")[:4] == points(tmp_path / "whole")
    assert len(points(tmp_path / "killed")) == 5


def test_a_point_that_is_no_model_is_refused_and_one_that_fails_has_no_value(tmp_path: Path) -> None:
    heads, rates = "decoder.layer.branches.self_attention.kv_heads", "training.optimizer.learning_rate"
    patch: dict[str, Any] = {
        "grid": {heads: [2, 3], rates: [0.01, 1e30]},
        "search": {"points": 10, "sampler": "random", "measure": "accuracy"},
        "seeds": [0],
        "variants": {"merged": None},
        "training": {"optimizer": {"name": "sgd"}, "steps": 6},
    }
    trials = run(tmp_path, patch)
    assert trials == run(tmp_path, patch)
    chosen = points(tmp_path)
    assert {(each["point"][heads], each["point"][rates]) for each in chosen} == {
        (kv_heads, rate) for kv_heads in ("2", "3") for rate in ("0.01", "1e+30")
    }
    for each in chosen:
        refused = each["point"][heads] == "3"
        assert ("kv_heads" in (each["refused"] or "")) == refused
        assert (each["accuracy"] is None) == (refused or each["point"][rates] == "1e+30")
    assert [trial.status for trial in trials] == ["done", "failed"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no grid": ({"search": {"points": 2}}, "search: found no grid"),
    "a path that is not there": (
        {"search": {"points": 2}, "grid": {"decoder.layr.depth": [1]}},
        r"variant 'separate' with depth=1.*decoder\.layr",
    ),
    "with a match": (
        {"search": {"points": 2}, "grid": GRID, "match": {"by": "flops"}},
        "match: found match and search together",
    ),
    "more than the budget": (SEARCH | {"budget": {"trials": 3}}, r"budget\.trials: found 4 trials"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_search_that_cannot_be_made_is_refused(case: str, tmp_path: Path) -> None:
    patch, message = REFUSED[case]
    with pytest.raises(pairform.PairformError, match=message):
        run(tmp_path, patch)
    assert not (tmp_path / "study").exists()


def test_another_grid_wants_another_folder(tmp_path: Path) -> None:
    fresh = SEARCH | {"training": {"steps": 0}, "search": {"points": 1}}
    run(tmp_path, fresh)
    with pytest.raises(pairform.PairformError, match="a search in another grid"):
        run(tmp_path, fresh | {"grid": {"decoder.depth": [1, 2]}})


def test_no_point_is_asked_twice_and_a_small_grid_is_run_whole(tmp_path: Path) -> None:
    patch = {"grid": {"training.batch": [1, 2, 3]}, "search": {"points": 100, "sampler": "tpe"}, "training": {"steps": 0}}
    trials = run(tmp_path, SEARCH | patch, jobs=2)
    chosen = [(each["point"]["variant"], each["point"]["training.batch"]) for each in points(tmp_path)]
    assert sorted(chosen) == [(variant, batch) for variant in ("merged", "separate") for batch in ("1", "2", "3")]
    assert len(trials) == 6


def test_a_point_chance_chooses_was_not_asked() -> None:
    choices = {"variant": ["a", "b"], "x": ["1", "2", "3"]}
    asked: list[dict[str, str]] = []
    for _ in range(6):
        asked.append(pick(choices, asked, np.random.default_rng(0)))
    assert len({tuple(point.items()) for point in asked}) == 6


def test_a_points_value_follows_its_trials(tmp_path: Path) -> None:
    """Of a trial that was begun anew after it failed, and of seeds that were added."""
    patch = SEARCH | {"search": {"points": 1, "sampler": "random"}}
    (trial,) = run(tmp_path, patch)
    folder = TrialFolder(tmp_path / "study", trial.name)
    folder.write(folder.read().at("failed", "by hand"))
    run(tmp_path, patch)
    assert points(tmp_path)[0]["loss"] is None
    run(tmp_path, patch, retry=True)
    assert points(tmp_path)[0]["loss"] == result(tmp_path, trial.name)["loss"]
    trials = run(tmp_path, patch | {"seeds": [0, 1]})
    losses = [result(tmp_path, trial.name)["loss"] for trial in trials]
    assert len(losses) == 2
    assert points(tmp_path)[0]["loss"] == pytest.approx(sum(losses) / 2)


LONGER = "length_extrapolation.loss_4x"


def measured(folder: Path, patch: dict[str, Any], points: int) -> tuple[Search, list[str]]:
    """A search whose trials end at once, each with another result, and their names in the order they were handed out in."""
    study = read_study(write_study(folder, SEARCH | patch | {"search": {"points": points, **patch.get("search", {})}}))
    assert study.search is not None
    (folder / "study").mkdir(exist_ok=True)
    search = Search(study, study.search, folder, gather(study, folder), folder / "study")
    names = []
    for name in search.queue([]):
        trial = TrialFolder(folder / "study", name)
        value = zlib.crc32(name.encode()) / 2**32
        write_json(trial.path / "result.json", dict.fromkeys(("loss", "accuracy", "exact_match", LONGER), value))
        trial.write(trial.read().at("done"))
        search.update()
        names.append(name)
    return search, names


@pytest.mark.parametrize(("measure", "best"), [("loss", min), ("accuracy", max), ("exact_match", max), (LONGER, min)])
def test_a_loss_is_made_small_and_an_accuracy_large(measure: str, best: Any, tmp_path: Path) -> None:
    """What Optuna holds for the best of the points is the best."""
    search, names = measured(tmp_path, {"search": {"measure": measure}, "measures": [{"name": "length_extrapolation"}]}, 6)
    values = [json.loads((tmp_path / "study" / "trials" / name / "result.json").read_text())[measure] for name in names]
    assert len(set(values)) == 6
    assert search.optuna.best_value == best(values)


def test_a_point_whose_trials_did_not_measure_it_has_no_value(tmp_path: Path) -> None:
    """Their results may be those of an earlier version, or changed by hand."""
    _, names = measured(tmp_path, {}, 2)
    (tmp_path / "study" / "trials" / names[0] / "result.json").write_text('{"accuracy": 0.5}')
    measured(tmp_path, {}, 2)
    assert [point["loss"] is None for point in points(tmp_path)] == [True, False]


def test_trials_of_points_are_numbered_in_the_order_in_which_they_are_handed_out(tmp_path: Path) -> None:
    _, names = measured(tmp_path, {"seeds": [0, 1]}, 3)
    _, more = measured(tmp_path, {"seeds": [0, 1]}, 5)
    numbers = {name: TrialFolder(tmp_path / "study", name).read().number for name in names + more}
    assert numbers == {name: number for number, name in enumerate(names + more)}


def test_another_measure_wants_another_folder(tmp_path: Path) -> None:
    fresh = SEARCH | {"training": {"steps": 0}, "search": {"points": 1}}
    run(tmp_path, fresh)
    with pytest.raises(pairform.PairformError, match="a search for another measure"):
        run(tmp_path, fresh | {"search": {"points": 2, "measure": "accuracy"}})


def test_a_list_of_points_that_was_cut_off_is_told(tmp_path: Path) -> None:
    fresh = SEARCH | {"training": {"steps": 0}, "search": {"points": 1}}
    run(tmp_path, fresh)
    file = tmp_path / "study" / "search.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(pairform.PairformError, match=r"search\.json: found .*expected the points of a search"):
        run(tmp_path, fresh)
