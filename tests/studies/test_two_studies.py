"""Two studies side by side."""

import json
from pathlib import Path

import pytest

from pairform.experiments.results.matched_size import Match
from pairform.experiments.results.records import TrialFolder
from pairform.experiments.results.two_studies import compare_studies
from pairform.registry import OutputError
from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import run, write_results

stats = pytest.importorskip("scipy.stats")
A: dict[str, list[float | str | None]] = {
    "same": [3.0, 4.0, 5.0],
    "changed": [2.0, 3.5, 3.0],
    "failing": [1.0, 2.0, 3.0],
    "old": [1.0, None, None],
}
B: dict[str, list[float | str | None]] = {
    "same": [3.0, 4.0, 5.0],
    "changed": [1.0, 2.6, 1.9],
    "failing": [1.0, None, 3.0],
    "new": [1.0, None, None],
}


def test_equal_seeds_of_equal_data_are_paired(tmp_path: Path) -> None:
    found = compare_studies(write_results(tmp_path / "a", A), write_results(tmp_path / "b", B))
    assert found.differences.keys() == {"variants.old", "variants.new"}
    assert found.differences["variants.old"][1] is None
    assert found.differences["variants.new"][0] is None
    assert found.alone == (["old"], ["new"])
    assert list(found.variants) == ["same", "changed", "failing"]
    changed = found.variants["changed"]
    assert changed.comparison is not None
    assert changed.paired
    assert changed.comparison.p == pytest.approx(stats.ttest_rel([1.0, 2.6, 1.9], [2.0, 3.5, 3.0]).pvalue)
    assert (changed.comparison.verdict, changed.comparison.count) == ("lower", 2)
    assert changed.sentence(found.rules).endswith("after Holm correction for 2 comparisons. Paired by seed.")
    assert found.variants["same"].sentence(found.rules) == "no difference in loss with any seed. Paired by seed."
    failing = found.variants["failing"].sentence(found.rules)
    assert failing == "no comparison: 3 and 2 of at least 3 finished seeds each."


@pytest.mark.parametrize(
    ("patch", "reason"),
    [({"data": {"symbols": 6}}, "the data differ"), ({"seeds": [0, 1, 2, 3]}, "the finished seeds differ")],
)
def test_other_data_or_seeds_are_compared_without_pairs(tmp_path: Path, patch: dict[str, object], reason: str) -> None:
    first, second = [2.0, 3.5, 3.0], [1.0, 2.6, 1.9, 1.5][: 4 if "seeds" in patch else 3]
    one, other = write_results(tmp_path / "a", {"v": first}), write_results(tmp_path / "b", {"v": second}, patch)
    found = compare_studies(one, other)
    pair = found.variants["v"]
    assert pair.comparison is not None
    assert not pair.paired
    assert pair.comparison.p == pytest.approx(stats.ttest_ind(second, first, equal_var=False).pvalue)
    assert pair.sentence(found.rules).endswith(f"Not paired, because {reason}: Welch's t-test.")
    assert found.same_data == ("data" not in patch)
    assert set(found.differences) == ({"data.symbols"} if "data" in patch else {"seeds"})


def test_changed_data_files_are_other_data(tmp_path: Path) -> None:
    folders = [write_results(tmp_path / name, {"v": [1.0, 2.0, 4.0]}) for name in "ab"]
    for folder, digest in zip(folders, ("0", "1"), strict=True):
        (folder / "data.json").write_text(json.dumps({"text.txt": digest * 64}))
    assert not compare_studies(*folders).same_data


def test_files_of_measures_are_not_data(tmp_path: Path) -> None:
    folders = [write_results(tmp_path / name, {"v": [1.0, 2.0, 4.0]}) for name in "ab"]
    for folder, more in zip(folders, ({}, {"measures: q.jsonl": "1" * 64}), strict=True):
        (folder / "data.json").write_text(json.dumps({"text.txt": "0" * 64} | more))
    assert compare_studies(*folders).same_data


def test_a_variant_that_is_not_matched_in_its_study_is_flagged(tmp_path: Path) -> None:
    folders = [write_results(tmp_path / name, {"v": [1.0, 2.0, 4.0], "w": [1.0, 2.0, 3.0]}) for name in "ab"]
    match = Match(by="parameters", wanted=100, found=112, tolerance=0.01)
    for seed in range(3):
        folder = TrialFolder(folders[1], f"w-seed{seed}")
        folder.write(folder.read().model_copy(update={"match": match}))
    found = compare_studies(*folders)
    sentences = {name: pair.sentence(found.rules) for name, pair in found.variants.items()}
    assert sentences["w"].endswith(" Not matched: parameters +12.00%, which may explain a difference.")
    assert "Not matched" not in sentences["v"]


def test_the_command_says_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write_results(tmp_path / "a", A), write_results(tmp_path / "b", B, {"training": {"steps": 0, "batch": 8}})
    command = CommandLine(monkeypatch, capsys)
    said = command("study", "compare", one, other).out
    assert ["training.batch", "4", "8"] in [line.split() for line in said.splitlines()]
    assert "Only in A: old." in said
    found = document(command("study", "compare", one, other, "--json"))
    assert {"path": "training.batch", "a": 4, "b": 8} in found["differences"]
    assert (found["only_in_a"], found["only_in_b"], found["same_data"]) == (["old"], ["new"], True)
    changed = found["variants"][1]
    assert changed["loss"]["a"] == {"mean": pytest.approx(8.5 / 3), "half_width": pytest.approx(1.897, abs=1e-3), "seeds": 3}
    assert changed["difference"]["verdict"] == "lower"
    assert f"changed: {changed['finding']}" in said.splitlines()


def test_studies_without_a_common_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = {"low": {}, "high": {"training": {"steps": 1}}}
    factors = {"variants": None, "factors": {"rate": levels}, "training": {"steps": 0}, "seeds": [0]}
    run(tmp_path / "a", factors)
    write_results(tmp_path / "b", {"base": [1.0]})
    said = CommandLine(monkeypatch, capsys)("study", "compare", tmp_path / "a" / "study", tmp_path / "b" / "study").out
    assert "No variant is in both studies." in said
    assert "B - A" not in said
    assert ["variants.base", "absent", "{}"] in [line.split() for line in said.splitlines()]


def test_a_folder_without_a_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no study\.json"):
        compare_studies(write_results(tmp_path / "a", A), tmp_path / "b")
