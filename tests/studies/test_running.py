"""Studies as they are run: equal seeds, equal numbers; failures stop nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.experiments.results.records import trials_of
from pairform.experiments.results.summary import summarise
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.training.data.batches import collate
from tests.command_line.runner import CommandLine, document, refused
from tests.studies.small_study import MERGED, STUDY, lines, result, run, write_study

FRESH: dict[str, Any] = {"training": {"steps": 0}}


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
    assert separate["results"]["loss"]["half_width"] is None, "of two seeds"
    losses = {trial.name: result(tmp_path, trial.name)["loss"] for trial in trials_of(tmp_path / "study")}
    differences = [losses[f"merged-seed{seed}"] - losses[f"separate-seed{seed}"] for seed in (0, 1)]
    assert merged["difference"]["loss"]["mean"] == pytest.approx(sum(differences) / 2)
    assert merged["difference"]["loss"]["half_width"] is None
    assert "difference" not in separate
    assert separate["results"]["parameters"]["mean"] - merged["results"]["parameters"]["mean"] == 4 * 8 * 8 + 2 * 8
    printed = pairform_command("study", "status", tmp_path / "study").out.splitlines()
    assert [line.split()[0] for line in printed] == ["variant", "separate", "merged", "merged:"]
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
    """Token by token: a pair, and a decoder alone, whose batches hold the same examples as one text."""
    specs = [pairform.load_spec(STUDY["base"], MERGED), pairform.load_spec("gemma-2-2b", {"vocabulary": 16})]
    contents = read_study(write_study(tmp_path)).data.gather(tmp_path)
    pair, alone = (contents.open(spec) for spec in specs)
    assert pair.validation() == alone.validation()
    for step in range(3):
        batch = pair.train(1, step, 4)
        assert batch == alone.train(1, step, 4)
        rows = [[*source, 2, *target] for source, target in batch]
        read = collate(batch, specs[1])
        assert [row[: len(own)] for row, own in zip(read["input_ids"].tolist(), rows, strict=True)] == rows


def test_a_trial_that_fails_is_recorded_and_stops_nothing(tmp_path: Path, pairform_command: CommandLine) -> None:
    huge = {"training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "steps": 6}}
    file = write_study(
        tmp_path, {"variants": {"merged": None, "diverges": huge, "after": {"encoder": {"dropout": 0.1}}}, "seeds": [0]}
    )
    ran = pairform_command("study", "run", file)
    assert ran.code == 1
    assert "diverges-seed0: the loss is" in ran.out
    states = {trial.name: trial.status for trial in trials_of(tmp_path / "study")}
    assert states == {"separate-seed0": "done", "diverges-seed0": "failed", "after-seed0": "done"}
    assert pairform_command("study", "run", file).out.count("seed0") == 0
    assert pairform_command("study", "run", file, "--retry").out.count("seed0") == 1


def test_a_study_grows_by_seeds_and_variants(tmp_path: Path) -> None:
    first = {trial.name: trial for trial in run(tmp_path, FRESH | {"variants": {"merged": None}, "seeds": [0]})}
    assert set(first) == {"separate-seed0"}
    assert len(run(tmp_path, FRESH)) == 4
    assert {trial.attempts for trial in trials_of(tmp_path / "study")} == {1}


def test_a_difference_is_from_the_first_variant_at_the_same_point(tmp_path: Path) -> None:
    """Here the variants are the same model, so there is none."""
    same = {
        "variants": {"merged": None, "same": {}},
        "grid": {"training.batch": [2, 4]},
        "training": {"steps": 1},
        "seeds": [0],
    }
    run(tmp_path, same, jobs=2)
    rows = {row["variant"]: row for row in summarise(tmp_path / "study")}
    assert rows["separate batch=2"]["results"]["loss"] != rows["separate batch=4"]["results"]["loss"]
    found = {name: row["difference"]["loss"]["mean"] for name, row in rows.items() if "difference" in row}
    assert found == {"same batch=2": 0.0, "same batch=4": 0.0}


def names(folder: Path, names: list[str], grid: dict[str, Any] | None = None) -> dict[str, str]:
    variants: dict[str, Any] = {name: {"encoder": {"dropout": place / 100}} for place, name in enumerate(names, 1)}
    study = read_study(
        write_study(folder, {"variants": {"separate": None, "merged": None} | variants, "grid": grid, "seeds": [0]})
    )
    return {trial.variant: trial.name for trial in plan_trials(study, folder, gather(study, folder))}


def test_a_trials_folder_follows_from_its_variant_alone(tmp_path: Path) -> None:
    some = names(tmp_path, ["lr 1", "\u5927"])
    more = names(tmp_path, ["lr-1", "lr_1", "\u5c0f", "\u5927", "lr 1", "x" * 300, "..", "/etc"])
    assert more | some == more
    assert len(set(more.values())) == len(more)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]{,120}", name) for name in more.values()), more
    assert more["lr-1"] == "lr-1-seed0"
    assert names(tmp_path, ["lr-1"], {"decoder.depth": [1]}) == {"lr-1 depth=1": "lr-1-depth=1-seed0"}


def test_status_needs_no_torch(tmp_path: Path) -> None:
    run(tmp_path, {"training": {"steps": 0}, "seeds": [0]})
    code = "import sys; from pairform.cli.main import app; app(sys.argv[1:], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "study", "status", str(tmp_path / "study")], check=True, capture_output=True)


def test_options_that_cannot_be_read_are_told_by_their_names(tmp_path: Path, pairform_command: CommandLine) -> None:
    file = write_study(tmp_path)
    refused(pairform_command("study", "run", file, "--set", "steps"), 2, "--set", "'steps'", "training.steps=100")
    ran = pairform_command("study", "run", file, "--slurm", "partition")
    refused(ran, 2, "--slurm", "'partition'", "partition=gpu")
    assert "--set" not in ran.err
    assert "training.steps=100" in pairform_command("study", "run", "--help").out


def test_names_cannot_drive_a_terminal(tmp_path: Path, pairform_command: CommandLine) -> None:
    odd: dict[str, Any] = {"merged": None, "separate": None, "red\x1b[31m\nforged": {}}
    file = write_study(tmp_path, {"name": "\x1b[2J", "variants": odd, "training": {"steps": 0}, "seeds": [0]})
    for words in (("run", file), ("status", tmp_path / "study")):
        out = pairform_command("study", *words).out
        assert "red\\x1b[31m\\nforged" in out
        assert "\x1b" not in out
