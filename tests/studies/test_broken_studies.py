"""A study that cannot be run says so before its first trial, and leaves nothing behind."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairform.registry import PairformError
from tests.studies.small_study import run

TEXT = {"name": "text", "train": ["*.txt"], "held_out": ["held.txt"], "symbols": None, "length": None}
BYTES = {"base": {"vocabulary": 300}}
BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown path in the grid": ({"grid": {"decoder.layr.norm": [1]}}, ["variants.merged with norm=1", "decoder.layr"]),
    "unknown path in a variant": ({"variants": {"odd": {"decoder": {"dept": 2}}}}, ["variants.odd.decoder.dept", "unknown"]),
    "unknown setting": ({"variants": {"odd": {"training": {"stepz": 2}}}}, ["variants.odd.training.stepz"]),
    "empty grid": ({"grid": {"decoder.depth": []}}, ["grid.decoder.depth", "no value"]),
    "a variant that does not validate": (
        {"variants": {"odd": {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 3}}}}}}},
        ["variants.odd.decoder.layer", "kv_heads"],
    ),
    "no seeds": ({"seeds": []}, ["seeds"]),
    "a seed twice": ({"seeds": [1, 1]}, ["seeds"]),
    "more trials than the budget": ({"budget": {"trials": 3}}, ["budget.trials", "4 trials"]),
    "no such base": ({"base": {"extends": "t5gemma-s-z"}}, ["t5gemma-s-s"]),
    "a vocabulary too small": ({"data": {"symbols": 40}}, ["vocabulary", "at least 40"]),
    "no such device": ({"training": {"device": "mars"}}, ["training.device", "mars"]),
    "data file missing": ({"data": TEXT | {"train": ["none/*.txt"]}} | BYTES, ["data.train", "none/*.txt"]),
    "data file empty": ({"data": TEXT | {"held_out": ["empty.txt"]}} | BYTES, ["empty.txt", "an empty file"]),
    "only held-out data": ({"data": TEXT | {"train": ["held.txt"]}} | BYTES, ["data.train", "0 tokens in 0 files"]),
    "no field": ({"data": TEXT | {"train": ["*.jsonl"], "field": "body"}} | BYTES, ["some.jsonl: line 2", "'body'"]),
    "no ids for bytes": ({"data": TEXT}, ["vocabulary", "at least 256"]),
    "no ids for sentinels": (
        {"data": TEXT | {"objective": {"name": "span_corruption"}}, "base": {"vocabulary": 260}},
        ["vocabulary", "as sentinels"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_study_is_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("a text " * 40)
    (tmp_path / "train.txt").write_text("another text " * 40)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "some.jsonl").write_text('{"text": "one", "body": "two"}\n{"text": "three"}\n')
    patch, words = BROKEN[case]
    with pytest.raises(PairformError) as caught:
        run(tmp_path, patch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "study").exists()


def test_a_full_disk_is_seen_before_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(PairformError, match="found 100 bytes free on its disk"):
        run(tmp_path)
    assert not (tmp_path / "study").exists()


def test_another_study_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    fresh = {"training": {"steps": 0}, "variants": {"merged": None}, "seeds": [0]}
    run(tmp_path, fresh)
    before = (tmp_path / "study" / "study.json").read_bytes()
    for change in ({"training": {"steps": 1}}, {"data": {"symbols": 9}}, {"seeds": [3]}):
        with pytest.raises(PairformError, match="found trials"):
            run(tmp_path, fresh | change)
    assert (tmp_path / "study" / "study.json").read_bytes() == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("")
    with pytest.raises(PairformError, match="something that is no study"):
        run(tmp_path)
