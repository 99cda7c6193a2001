"""Studies as they are run: equal seeds, equal numbers; failures stop nothing."""

import json
from pathlib import Path

import pytest
import torch

from pairform.experiments.records import trials_of
from tests.command_line.runner import CommandLine, document
from tests.studies.small_study import lines, result, run, write_study


@pytest.fixture
def pairform_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def test_a_study_from_its_file_to_its_table(tmp_path: Path, pairform_command: CommandLine) -> None:
    file = write_study(tmp_path)
    ran = document(pairform_command("study", "run", file, "--jobs", 2, "--json"))
    assert ran == document(pairform_command("study", "status", tmp_path / "study", "--json"))
    separate, merged = ran["variants"]
    assert (separate["variant"], merged["variant"]) == ("separate", "merged")
    assert separate["trials"] == merged["trials"] == {"done": 2}
    assert separate["results"]["loss"]["half_width"] > 0
    losses = {trial.name: result(tmp_path, trial.name)["loss"] for trial in trials_of(tmp_path / "study")}
    differences = [losses[f"merged-seed{seed}"] - losses[f"separate-seed{seed}"] for seed in (0, 1)]
    assert merged["difference"]["loss"]["mean"] == pytest.approx(sum(differences) / 2)
    assert merged["difference"]["loss"]["half_width"] == pytest.approx(
        12.706 * abs(differences[0] - differences[1]) / 2, rel=1e-3
    )
    assert "difference" not in separate
    assert separate["results"]["parameters"]["mean"] - merged["results"]["parameters"]["mean"] == 4 * 8 * 8 + 2 * 8
    printed = pairform_command("study", "status", tmp_path / "study").out.splitlines()
    assert [line.split()[0] for line in printed] == ["variant", "separate", "merged"]
    environment = json.loads((tmp_path / "study" / "environment.json").read_text())
    assert environment["command"].startswith(f"pairform study run {file}")
    assert environment["machine"]["instructions"].startswith(torch.backends.cpu.get_cpu_capability())


def test_what_is_written_of_a_trial(tmp_path: Path) -> None:
    trials = run(tmp_path, {"latency": True, "variants": {"merged": None}, "seeds": [7]})
    (trial,) = trials
    assert (trial.name, trial.variant, trial.seed, trial.status, trial.attempts) == ("separate-seed7", "separate", 7, "done", 1)
    written = lines(tmp_path, trial.name)
    assert [(line["split"], line["step"]) for line in written] == [
        ("train", 1),
        ("train", 2),
        ("valid", 2),
        ("train", 3),
        ("valid", 3),
    ]
    found = result(tmp_path, trial.name)
    assert found["loss"] == written[-1]["loss"]
    assert found["flops"] > 0
    assert found["cache_bytes"] == 4 * 2 * 8 * (4 + 5)
    assert found["latency"] > 0


def test_numbers_depend_on_neither_jobs_nor_neighbours(tmp_path: Path) -> None:
    run(tmp_path / "both", jobs=2)
    run(tmp_path / "alone", {"variants": {"separate": None}, "seeds": [1]})
    assert lines(tmp_path / "both", "merged-seed1") == lines(tmp_path / "alone", "merged-seed1")
    assert lines(tmp_path / "both", "merged-seed0") != lines(tmp_path / "both", "merged-seed1")


def test_every_variant_reads_the_same_data(tmp_path: Path) -> None:
    run(tmp_path)
    tokens = [[line["tokens"] for line in lines(tmp_path, f"{variant}-seed0")] for variant in ("separate", "merged")]
    assert tokens[0] == tokens[1]


def test_a_trial_that_fails_is_recorded_and_stops_nothing(tmp_path: Path, pairform_command: CommandLine) -> None:
    huge = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}
    file = write_study(tmp_path, {"variants": {"merged": None, "diverges": huge, "after": {}}, "seeds": [0]})
    ran = pairform_command("study", "run", file)
    assert ran.code == 1
    assert "diverges-seed0: the loss is" in ran.out
    states = {trial.name: trial.status for trial in trials_of(tmp_path / "study")}
    assert states == {"separate-seed0": "done", "diverges-seed0": "failed", "after-seed0": "done"}
    assert pairform_command("study", "run", file).out.count("seed0") == 0
    assert pairform_command("study", "run", file, "--retry").out.count("seed0") == 1


def test_a_study_grows_by_seeds_and_variants(tmp_path: Path) -> None:
    first = {trial.name: trial for trial in run(tmp_path, {"variants": {"merged": None}, "seeds": [0]})}
    assert set(first) == {"separate-seed0"}
    assert len(run(tmp_path)) == 4
    assert {trial.attempts for trial in trials_of(tmp_path / "study")} == {1}
