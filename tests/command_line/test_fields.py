"""The commands that list the fields of studies and recipes."""

import json

import pytest
from pydantic import BaseModel

from pairform.experiments.study.spec import StudySpec
from pairform.training.adaptation.recipe import Recipe
from tests.command_line.runner import CommandLine, document, refused


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(("name", "spec"), [("study", StudySpec), ("adapt", Recipe)])
def test_every_field_is_listed_with_its_description(command: CommandLine, name: str, spec: type[BaseModel]) -> None:
    found = document(command(name, "fields", "--json"))
    assert {each["path"].partition(".")[0].partition(" ")[0] for each in found} == set(spec.model_fields)
    assert all(each["says"] for each in found)


def test_the_fields_below_a_path(command: CommandLine) -> None:
    lines = command("study", "fields", "training.optimizer").out.splitlines()
    assert lines[0] == "training.optimizer  object"
    assert 'training.optimizer.name  "adamw" or "sgd" or "muon", default "adamw"' in lines
    assert not any(line.startswith("training.steps") for line in lines)
    assert command("study", "fields", "data.name").out.startswith('data.name  "copy" or "reverse"')


def test_an_unknown_field_is_an_error_with_a_suggestion(command: CommandLine) -> None:
    refused(command("study", "fields", "traning"), 1, "found 'traning'", "Did you mean 'training'")


@pytest.mark.parametrize("kind", ["study", "recipe", "model"])
def test_the_schema_of_each_kind_is_printed(command: CommandLine, kind: str) -> None:
    found = json.loads(command("schema", kind).out)
    assert found["title"] == f"pairform {kind}"


def test_an_unknown_kind_of_schema(command: CommandLine) -> None:
    refused(command("schema", "studies"), 2, "expected model or study or recipe")
