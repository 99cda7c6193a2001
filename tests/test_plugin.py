"""The package in examples/plugin, installed beside pairform: its block is one like any other, in processes of a study too."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line.runner import CommandLine, refused

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


def python(folder: Path, *words: object, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in `folder`, with the packages in `site`."""
    environment = os.environ | ({} if site is None else {"PYTHONPATH": str(site)})
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed."""
    made = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, made / "source", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", made / "site"]
    done(python(made, "pip", "install", *options, source))
    return made / "site"


def test_its_own_tests_pass(site: Path) -> None:
    assert "2 passed" in done(python(PLUGIN, "pytest", "-p", "no:cacheprovider", site=site))


def test_it_is_in_the_catalogue(site: Path, tmp_path: Path) -> None:
    listed = json.loads(done(python(tmp_path, "pairform", "blocks", "feed_forward", "--json", site=site)))
    assert "bilinear" in listed["feed_forward"]
    page = json.loads(done(python(tmp_path, "pairform", "blocks", "feed_forward", "bilinear", "--json", site=site)))
    assert page["example"] == {"name": "bilinear", "hidden": 512}
    assert page["shapes"] == "hidden -> a tensor"


def test_a_study_compares_it(site: Path, tmp_path: Path) -> None:
    words = ["--set", "training.steps=2", "--set", "seeds=[0]", "--out", tmp_path / "out", "--json"]
    told = json.loads(done(python(tmp_path, "pairform", "study", "run", PLUGIN / "study.json", *words, site=site)))
    assert {row["variant"]: row["trials"] for row in told["variants"]} == {"gated": {"done": 1}, "bilinear": {"done": 1}}
    parameters = {row["variant"]: row["results"]["parameters"]["mean"] for row in told["variants"]}
    assert parameters["gated"] == parameters["bilinear"]


def test_without_it_the_block_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = CommandLine(monkeypatch, capsys)("study", "run", PLUGIN / "study.json", "--out", tmp_path / "out")
    refused(ran, 1, "bilinear")
    assert not (tmp_path / "out").exists()
