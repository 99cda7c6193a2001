"""The studies in examples/, run in their quick form."""

import subprocess
import sys
from pathlib import Path

import pytest

from pairform.experiments.results.records import trials_of
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from tests.command_line.runner import CommandLine

ROOT = Path(__file__).parents[2]
SWAPS = ROOT / "examples" / "what_survives" / "study.json"


def test_what_survives_compares_fifteen_swaps_with_sixteen_seeds() -> None:
    study = read_study(SWAPS)
    planned = plan_trials(study, SWAPS.parent, gather(study, SWAPS.parent))
    assert len(planned) == 16 * 16
    assert len({trial.variant for trial in planned}) == 16
    assert not any(trial.also for trial in planned)


def test_what_survives_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "training.steps=1", "--set", "data.validation=2", "--set", "seeds=[0]", "--only", "merged attention"]
    ran = CommandLine(monkeypatch, capsys)("study", "run", SWAPS, "--out", tmp_path / "swaps", *words)
    assert ran.code == 0, ran
    assert "merged attention" in ran.out


def test_initialisation_runs(tmp_path: Path) -> None:
    """From the language models to both reports."""
    command = [sys.executable, "-m", "examples.initialisation.run", "--out", str(tmp_path), "--quick", "--jobs", "1"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in ("equal", "unequal"):
        trials = {trial.variant: trial for trial in trials_of(tmp_path / name)}
        assert {trial.status for trial in trials.values()} == {"done"}
        assert trials["new"].carried is None
        assert all(trial.carried is not None for variant, trial in trials.items() if variant != "new")
        assert (tmp_path / name / "report.html").is_file()
