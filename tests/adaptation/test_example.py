"""The example that shows what initialisation is worth, with a few steps, in this process."""

import json
from pathlib import Path

import pytest

from examples.adaptation import page, run
from examples.adaptation.texts import LABELS, labels_of
from tests.command_line.runner import CommandLine


def test_it_trains_a_pair_from_every_start_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = CommandLine(monkeypatch, capsys)

    def here(folder: Path, *words: str) -> None:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            assert command(*words).code == 0

    monkeypatch.setattr(run, "pairform_command", here)
    monkeypatch.setattr(run, "PAIRS", {"unequal": run.PAIRS["unequal"]})
    results = run.prove(tmp_path, jobs=1, quick=True)
    page.write(results, tmp_path)
    assert len(results) == 1 + 2 * 3
    assert {len(losses) for each in results[1:] for losses in each["losses"].values()} == {2}
    assert all(0 < each["representation"] < 1 for each in results)
    assert all(abs(each["use of the source"]) < 1 for each in results[1:])
    recipes = [json.loads(file.read_text()) for file in tmp_path.glob("*warm-up*.recipe.json")]
    assert all(recipe["phases"] == [{"steps": 1, "train": ["*cross_attention*"]}] for recipe in recipes)
    assert len((tmp_path / "results.md").read_text().splitlines()) == (2 + 6) + 1 + (2 + 7) + 2
    assert (tmp_path / "losses.svg").is_file()


def test_bytes_are_labelled_by_what_they_belong_to() -> None:
    text = 'def f(x):  # why\n    return self.go(x, 12, "s")\n'
    found = [LABELS[label] for label in labels_of(text)]
    assert {text[place]: found[place] for place in (0, 4, 5, 6, 11, 13)} == {
        "d": "keyword",
        "f": "definition",
        "(": "operator",
        "x": "name",
        "#": "comment",
        "w": "comment",
    }
    second = text.index("self")
    assert found[second : second + 7] == ["name"] * 4 + ["operator"] + ["call"] * 2
    assert (found[text.index("12")], found[text.index('"s"')], found[text.index(" ")]) == ("number", "string", "space")
