"""Remarks on models that are probably not what was meant: in the plan, before a run, and with its results."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import STUDY

MQA = {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}}
TWICE = {"decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}}}}}
VARIANTS: dict[str, Any] = {
    "separate": {},
    "merged": {"decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None}}}},
    "twice": TWICE,
    "unread": {"decoder": {"layer": {"branches": {"cross_attention": None}}}},
    "partly": {"decoder": {"depth": 2, "overrides": [{"layers": [0], "patch": {"branches": {"cross_attention": None}}}]}},
    "mqa": MQA,
    "one key head": MQA,
}
SAID = {
    "twice": "layer 0 of its decoder reads the encoder in 2 branches: self_attention (merged_attention), cross_attention "
    '(cross_attention). If one is meant, remove the other, as with `"cross_attention": null`.',
    "unread": "no block of its decoder reads the encoder.",
}
LINES = [*(f"{name}: {said}" for name, said in SAID.items()), "one key head: the same model, training and weights as mqa."]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def write(folder: Path, changes: dict[str, Any]) -> Path:
    """The small study with one seed and these fields, of which no null is lost."""
    file = folder / "study.json"
    file.write_text(
        json.dumps({name: value for name, value in (STUDY | {"seeds": [0]} | changes).items() if value is not None})
    )
    return file


def test_what_reads_the_encoder_twice_or_never_is_told_before_and_after_a_run(tmp_path: Path, command: CommandLine) -> None:
    file = write(tmp_path, {"variants": VARIANTS, "training": {"steps": 0}})
    planned = command("study", "plan", file, "--no-time").out.splitlines()
    assert [line for line in planned if ": " in line][: len(LINES)] == LINES
    rows = document(command("study", "plan", file, "--no-time", "--json"))["variants"]
    assert {row["name"]: row["remarks"] for row in rows if row["remarks"]} == {name: [said] for name, said in SAID.items()}
    ran = command("study", "run", file).out.splitlines()
    assert ran[: len(LINES)] == LINES
    status = command("study", "status", tmp_path / "study").out.splitlines()
    assert [line for line in status if line in LINES] == LINES
    rows = document(command("study", "status", tmp_path / "study", "--json"))["variants"]
    assert {row["variant"]: row["remarks"] for row in rows if "remarks" in row} == {name: [said] for name, said in SAID.items()}
    command("study", "report", tmp_path / "study")
    page = (tmp_path / "study" / "report.html").read_text("utf-8")
    assert "Layer 0 of its decoder reads the encoder in 2 branches" in page
    assert "No block of its decoder reads the encoder." in page


def test_combinations_that_are_the_same_are_told(tmp_path: Path, command: CommandLine) -> None:
    """They keep their trials, since every effect is computed from all combinations."""
    factors = {"a": {"0": {}, "1": MQA}, "b": {"0": {}, "1": MQA}}
    file = write(tmp_path, {"variants": None, "factors": factors, "training": {"steps": 0}})
    said = "a=1 b=0, a=1 b=1: the same model, training and weights as a=0 b=1, with trials of its own."
    assert said in command("study", "plan", file, "--no-time").out.splitlines()
    ran = command("study", "run", file)
    assert ran.out.splitlines()[0] == said
    assert "4/4  done" in ran.out
    command("study", "report", tmp_path / "study")
    assert "The same model, training and weights as a=0 b=1" in (tmp_path / "study" / "report.html").read_text("utf-8")


def test_a_remark_that_a_later_version_makes_does_not_end_a_study(tmp_path: Path, command: CommandLine) -> None:
    file = write(tmp_path, {"variants": {"unread": VARIANTS["unread"]}, "training": {"steps": 0}})
    assert command("study", "run", file).code == 0
    trial = tmp_path / "study" / "trials" / "unread-seed0" / "trial.json"
    record = json.loads(trial.read_text())
    del record["remarks"]
    trial.write_text(json.dumps(record))
    assert command("study", "run", file).code == 0
    assert json.loads(trial.read_text())["remarks"] == [SAID["unread"]]


def test_a_decoder_only_model_has_no_encoder_to_read(tmp_path: Path, command: CommandLine) -> None:
    decoder = STUDY["base"]["decoder"] | {"extends": "t5gemma-s-s"}
    decoder["layer"] = {"branches": decoder["layer"]["branches"] | {"cross_attention": None}}
    base = {"assembly": "decoder_only", "vocabulary": 16, "decoder": decoder, "head": {"name": "lm", "tie": "decoder"}}
    base["tokens"] = {"pad": 0, "eos": 1, "bos": 2}
    found = document(
        command("study", "plan", write(tmp_path, {"base": base, "variants": {"alone": {}}}), "--no-time", "--json")
    )
    assert [row["remarks"] for row in found["variants"]] == [[]]
