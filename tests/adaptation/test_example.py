"""The examples of adaptation with a few steps, in this process."""

import json
from pathlib import Path

import pytest

import pairform
from examples.adaptation import families, page, run
from examples.adaptation.texts import LABELS, labels_of
from tests.command_line.runner import CommandLine


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = CommandLine(monkeypatch, capsys)

    def here(folder: Path, *words: str) -> None:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            result = command(*words)
            assert result.code == 0, result

    for module in (run, families):
        monkeypatch.setattr(module, "pairform_command", here)


def test_it_trains_a_pair_from_every_start_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_it_adapts_a_pair_of_two_families_beside_a_t5gemma(tmp_path: Path) -> None:
    results = families.compare(tmp_path, jobs=1, quick=True)
    assert [result["pair"] for result in results] == [*families.PAIRS]
    assert all(len(result["losses"]) == 2 and abs(result["use of the source"]) < 1 for result in results)
    kinds = {name: json.loads((tmp_path / "hf" / name / "config.json").read_text())["model_type"] for name in families.SOURCES}
    assert kinds == {"modernbert": "modernbert", "gemma2": "gemma2", "gemma3": "gemma3_text"}
    model = tmp_path / "models" / "modernbert-gemma3"
    assert (model / "tokenizer.json").read_bytes() == (tmp_path / "shards-decoder" / "tokenizer.json").read_bytes()
    own = (tmp_path / "shards-encoder" / "tokenizer.json").read_bytes()
    assert (model / "encoder_tokenizer" / "tokenizer.json").read_bytes() == own
    # the source's weights, a few steps later, and not new ones
    source = pairform.load(tmp_path / "hf" / "modernbert").encoder
    trained = pairform.load(model).encoder
    assert source is not None
    assert trained is not None
    for one, two in zip(source.parameters(), trained.parameters(), strict=True):
        assert float((one - two).detach().abs().max()) < 0.05
    lines = list(families.table(results))
    assert len(lines) == 2 + len(results)
    assert {line.count("|") for line in lines} == {2 + 3}


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
