"""The written files: formatted, typed, without pairform, and short; what has no written form is refused by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pairform
from pairform.registry import SpecError
from tests.command_line.runner import CommandLine
from tests.eject.small import small
from tests.eject.variants import PRESETS, VARIANTS

RULES = "E,F,I,UP,B,SIM,RUF,PT,C4,PIE,RET,PTH,TID,N"
MIXTURE = {"name": "mixture", "experts": 2, "expert": {"name": "gated", "hidden": 8}, "hidden": None, "activation": None}


def checked(*command: str) -> None:
    """Run a tool, which must find nothing."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_files_are_formatted_and_typed_and_need_torch_only(tmp_path: Path) -> None:
    for name in PRESETS:  # in their published sizes, pictures left out
        spec = pairform.load_spec(name)
        text = pairform.eject(pairform.patch(spec, {part: {"vision": None} for part in spec.stacks}))
        (tmp_path / f"{name.replace('-', '_').replace('.', '_')}.py").write_text(text)
        assert "pairform" not in "".join(line for line in text.splitlines() if "import " in line)
    for name, (preset, changes) in VARIANTS.items():
        (tmp_path / f"{name}.py").write_text(pairform.eject(small(preset, changes)))
    checked("ruff", "format", "--check", "--isolated", "--line-length", "128", str(tmp_path))
    checked("ruff", "check", "--isolated", "--line-length", "128", "--select", RULES, str(tmp_path))
    # one run for all
    checked("mypy", "--strict", "--config-file=", "--cache-dir", ".mypy_cache/eject", str(tmp_path))


def test_t5gemma_is_less_than_400_lines() -> None:
    assert len(pairform.eject("t5gemma-b-b").splitlines()) < 400


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"layer": {"branches": {"feed_forward": MIXTURE}}}, "branches.feed_forward"),
        ({"layer": {"norm": {"name": "scalenorm", "eps": None, "unit_offset": None, "affine": None}}}, "norm"),
        ({"layer": {"branches": {"self_attention": {"sinks": True}}}}, "self_attention.sinks"),
        ({"layer": {"branches": {"self_attention": {"position": {"scaling": {"name": "dynamic", "factor": 2.0,
         "original_length": 8}}}}}}, "position.scaling"),
        ({"layer": {"output_scale": "learned"}}, "output_scale"),
    ],
)  # fmt: skip
def test_what_has_no_written_form_is_refused_by_its_path(changes: dict[str, Any], where: str) -> None:
    spec = small("gemma-2-2b", {"decoder": changes})
    with pytest.raises(SpecError, match="no written form") as caught:
        pairform.eject(spec)
    problems = caught.value.problems
    assert any(problem.where.startswith("decoder.") and problem.where.endswith(where) for problem in problems)
    # once, not for every layer
    assert len(problems) == len({problem.where.partition("]")[2] for problem in problems})


@pytest.mark.parametrize("name", ["class", "ﬁeld"])
def test_branch_names_that_python_reads_otherwise_are_refused(name: str) -> None:
    document = small("gemma-2-2b").document()
    layer = document["decoder"]["layer"]
    layer["branches"][name] = layer["branches"].pop("feed_forward")
    layer["order"] = ["self_attention", name]
    with pytest.raises(SpecError, match="keyword"):
        pairform.eject(document)


def test_the_command_writes_a_file_and_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = CommandLine(monkeypatch, capsys), tmp_path / "model.py"
    assert run("eject", "gemma-2-2b", "--set", "decoder.depth=3", "--out", out).code == 0
    assert "for _ in range(3)" in out.read_text()
    refused = run("eject", "gemma-2-2b", "--out", out)
    assert refused.code == 1
    assert "--overwrite" in refused.err
    assert "for _ in range(3)" in out.read_text()
    assert run("eject", "gemma-2-2b", "--out", out, "--overwrite").code == 0
    assert "for _ in range(26)" in out.read_text()
    assert run("eject", "gemma-2-2b").out == out.read_text()
