"""Patches on studies: a name chooses a block only where one stands, and what a schedule does not have may stay."""

from pathlib import Path
from typing import Any

import pytest

from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.registry import PairformError, parse_settings, thaw
from pairform.training.settings import ScheduleSpec
from tests.studies.small_study import MERGED, STUDY, write_study

SCHEDULE = {"training": {"schedule": {"name": "cosine", "warmup": 2, "final": 0.0}}, "seeds": [0], "variants": {"merged": None}}
NAMES = ["cosine", "constant", "linear"]


def schedules(folder: Path, patch: dict[str, Any]) -> list[ScheduleSpec]:
    study = read_study(write_study(folder, SCHEDULE | patch))
    return [trial.training.schedule for trial in plan_trials(study, folder, gather(study, folder))]


def test_a_schedule_of_another_name_keeps_its_fields(tmp_path: Path) -> None:
    """`linear` is the name of a bridge too."""
    expected = [ScheduleSpec(name=name, warmup=2, final=0.0) for name in NAMES]  # type: ignore[arg-type]
    by_grid = schedules(tmp_path, {"grid": {"training.schedule.name": NAMES}})
    variants = {name: {"training": {"schedule": {"name": name}}} for name in NAMES}
    by_variant = schedules(tmp_path, {"variants": {"separate": None, "merged": None} | variants})
    assert by_grid == by_variant == expected
    file = write_study(tmp_path, SCHEDULE)
    for name, wanted in zip(NAMES, expected, strict=True):
        assert read_study(file, parse_settings([f"training.schedule.name={name}"])).training.schedule == wanted


@pytest.mark.parametrize(
    "patch",
    [
        {"variants": {"separate": {"training": {"schedule": {"name": "constant", "final": 0.5}}}}},
        {"grid": {"training.schedule.final": [0.1, 0.5]}, "training": {"schedule": {"name": "constant", "final": 0.1}}},
        {
            "variants": {"separate": {"training": {"schedule": {"final": 0.5}}}},
            "grid": {"training.schedule.name": ["constant"]},
        },
    ],
)
def test_a_field_that_a_schedule_does_not_have_is_refused_where_it_is_written(patch: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PairformError, match=r"training\.schedule\.final: found 0\.5, expected the default: constant"):
        schedules(tmp_path, patch)


@pytest.mark.parametrize("name", ["linear", "none", "gated"])
def test_a_study_may_have_a_blocks_name(name: str, tmp_path: Path) -> None:
    file = write_study(tmp_path)
    study = read_study(file, parse_settings([f"name={name}"]))
    assert study == read_study(file).model_copy(update={"name": name})


def test_blocks_of_the_base_and_of_variants_are_patched_as_in_a_model(tmp_path: Path) -> None:
    hidden = {"name": "gated", "hidden": 8, "activation": "silu"}
    base = STUDY["base"] | {"decoder": STUDY["base"]["decoder"] | {"layer": {"branches": {"feed_forward": hidden}}}}
    feed = {"decoder": {"layer": {"branches": {"feed_forward": {"name": "mixture", "experts": 2, "expert": hidden}}}}}
    file = write_study(tmp_path, {"base": base, "variants": {"separate": feed, "merged": MERGED}})
    path = "decoder.layer.branches.feed_forward.name=mlp"
    study = read_study(file, parse_settings([f"base.{path}", f"variants.separate.{path}"]))
    assert thaw(study.base)["decoder"]["layer"]["branches"]["feed_forward"] | {"activation": "silu"} == {
        "name": "mlp",
        "hidden": 8,
        "activation": "silu",
        "bias": False,
        "dropout": 0.0,
        "wide_output": False,
    }
    assert thaw(study.variants["separate"])["decoder"]["layer"]["branches"]["feed_forward"] == {"name": "mlp"}
