"""Variants that are scaled towards the size of the first."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pairform
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
        ["variants.merged.match", "at the closest", "0.10%"],
    ),
    "nothing to change": (
        {"match": {"by": "flops", "paths": ["decoder.layer.branches.experts.hidden"]}},
        ["variants.merged.match.paths", "decoder.layer.branches.experts.hidden"],
    ),
    "nothing to match": ({"match": {"by": "flops"}, "variants": {"merged": None}}, ["match: found one variant"]),
    "larger with the least feed-forward": (
        {"match": {"by": "parameters"}, "variants": {"merged": None, "deep": {"decoder": {"depth": 8}}}},
        ["variants.deep.match", "at the closest, +"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_matched_is_refused(case: str, tmp_path: Path) -> None:
    patch, words = REFUSED[case]
    with pytest.raises(pairform.PairformError) as caught:
        run(tmp_path, FRESH | patch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "study").exists()
