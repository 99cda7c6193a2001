"""The wheel in a fresh virtual environment, used from a folder outside the repository."""

import json
import os
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.release.conftest import Built

SMALL: dict[str, Any] = {
    "extends": "t5gemma-s-s",
    "vocabulary": 32,
    "encoder": {"width": 16, "depth": 1},
    "decoder": {"width": 16, "depth": 1},
}
STUDY = {
    "name": "copy",
    "base": SMALL,
    "variants": {"one layer": {}},
    "training": {"steps": 2, "batch": 4},
    "data": {"name": "copy", "symbols": 16, "length": [4, 8], "validation": 8},
    "seeds": [0],
}
FORWARD = """
import torch, pairform
model = pairform.build("small.json", seed=0)
print(pairform.__file__, tuple(model(torch.tensor([[5, 6]]), labels=torch.tensor([[7, 8, 1]])).logits.shape))
"""


@dataclass(frozen=True)
class Installed:
    """Runs programs of the environment in a folder that holds nothing of the repository."""

    programs: Path
    folder: Path

    def __call__(self, program: str, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        command = [str(self.programs / program), *words]
        ran = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The dependencies are those of the environment that runs the tests, through a path file."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, str(built.wheel)], check=True)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    (folder / "elsewhere").mkdir()
    return Installed(python.parent, folder / "elsewhere")


def test_commands_that_need_no_weights(installed: Installed) -> None:
    assert installed("pairform", "--version") == f"pairform {pairform.__version__}\n"
    assert set(json.loads(installed("pairform", "presets", "--json"))) == set(pairform.presets())
    assert "parameters: total" in installed("pairform", "inspect", "t5gemma-2b-2b")
    assert json.loads(installed("pairform", "schema", "recipe"))["title"] == "pairform recipe"


def test_a_model_is_built_and_computes(installed: Installed) -> None:
    (installed.folder / "small.json").write_text(json.dumps(SMALL))
    place, _, shape = installed("python", "-c", FORWARD).strip().partition(" ")
    assert Path(place).is_relative_to(installed.programs.parent)
    assert shape == "(1, 3, 32)"


def test_a_study_runs_and_is_reported(installed: Installed) -> None:
    (installed.folder / "copy.json").write_text(json.dumps(STUDY))
    assert "one layer" in installed("pairform", "study", "run", "copy.json", "--jobs", "1")
    installed("pairform", "study", "report", "copy")
    page = (installed.folder / "copy" / "report.html").read_text("utf-8")
    assert "one layer" in page
    assert "echarts" in page
    versions = json.loads((installed.folder / "copy" / "environment.json").read_text("utf-8"))["versions"]
    assert versions["pairform"] == pairform.__version__
