"""What released versions offered by name still exists, unless the changelog says that it was removed."""

import json
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.command_line.runner import CommandLine
from tests.compatibility.test_reading import VERSIONS
from tests.compatibility.write import arguments, options

REMOVED = {("0.1.0", "generate"): {"--beams"}}
"""Options that are gone, by the version that had them and the command; the changelog names each under Removed."""


def missing(old: Any, now: Any) -> set[str]:
    return set(old) - set(now)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def interface(version: str) -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parent / version / "interface.json").read_text("utf-8")))


def test_public_names_and_their_arguments(interface: dict[str, Any]) -> None:
    assert missing(interface["names"], pairform.__all__) == set()
    for name, old in interface["names"].items():
        assert missing(old, arguments(getattr(pairform, name))) == set(), name


def test_presets_and_the_fields_of_blocks(interface: dict[str, Any]) -> None:
    assert missing(interface["presets"], pairform.presets()) == set()
    for block, fields in interface["blocks"].items():
        kind, name = block.split()
        assert missing(fields, pairform.blocks(kind)[name].Spec.model_fields) == set(), block


def test_commands_and_their_options(
    version: str, interface: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CommandLine(monkeypatch, capsys)
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8")
    for command, old in interface["commands"].items():
        gone = missing(old, options(run(*command.split(), "--help").out))
        assert gone == REMOVED.get((version, command), set()), command
        assert all(f"`pairform {command} {option}`" in changelog for option in gone)
