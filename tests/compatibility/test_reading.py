"""Files that released versions wrote are read by this one, with the same numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.registry import SpecError
from tests.command_line.runner import CommandLine, document, refused
from tests.compatibility.write import MODELS, SOURCE, TARGET

VERSIONS = ["0.1.0", "0.2.0"]
WITH_RUNS = VERSIONS[1:]
FOLDERS = [*MODELS, "pair", "exported"]
TOLERANCE = 1e-5
"""Processors add up in different orders; the same one that wrote the files computes the same bits."""


@pytest.fixture(params=VERSIONS)
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a version wrote, as the working directory."""
    return working_copy(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=WITH_RUNS)
def with_run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return working_copy(request.param, tmp_path, monkeypatch)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def working_copy(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = folder / version
    shutil.copytree(Path(__file__).parent / version, copy)
    monkeypatch.chdir(copy)
    return copy


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("name", FOLDERS)
@torch.no_grad()
def test_a_checkpoint_computes_what_it_did(written: Path, name: str) -> None:
    expected = read_json(written / "expected.json")[name]
    model = pairform.load(name).eval()
    logits = model(SOURCE, decoder_input_ids=TARGET).logits[:, -1]
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=TOLERANCE, atol=TOLERANCE)
    assert model.generate(SOURCE[:1], max_new_tokens=6).tolist() == expected["tokens"]
    assert pairform.verify(name).ok


@pytest.mark.parametrize("name", MODELS)
def test_a_document_describes_the_same_model_with_the_same_new_weights(written: Path, name: str) -> None:
    spec = pairform.load_spec(f"{name}.json")
    assert pairform.diff(spec, name) == {}
    stored = pairform.load(name).state_dict()
    for tensor, value in pairform.build(spec, seed=0).state_dict().items():
        torch.testing.assert_close(value, stored[tensor], msg=tensor)


def test_a_checkpoint_is_written_again_converted_and_exported(written: Path) -> None:
    pairform.save(pairform.load("pair"), "again")
    assert pairform.diff("pair", "again") == {}
    pairform.export("plain", "plain-exported", format="transformers")
    carried, plan = pairform.carry("plain", patch={"decoder": {"layer": {"branches": {"self_attention": {"softcap": None}}}}})
    assert {row.kind for row in plan.targets} == {"copied"}
    assert carried.spec.decoder is not None


def test_a_study_is_shown_and_reported(written: Path, command: CommandLine) -> None:
    losses = {path.parent.name: read_json(path)["loss"] for path in written.glob("study/trials/*/result.json")}
    shown = document(command("study", "status", "study", "--json"))
    assert [each["variant"] for each in shown["variants"]] == ["separate", "mlp", "slow"]
    for each in shown["variants"]:
        mean = (losses[f"{each['variant']}-seed0"] + losses[f"{each['variant']}-seed1"]) / 2
        assert each["results"]["loss"]["mean"] == pytest.approx(mean)
    assert command("study", "report", "study").code == 0
    page = Path("study/report.html").read_text("utf-8")
    assert "separate" in page
    assert "mlp" in page
    assert command("study", "export", "study", "--out", "trials.csv").code == 0
    assert Path("trials.csv").read_text("utf-8").count("\n") == 1 + len(losses)


def test_a_study_is_extended(written: Path, command: CommandLine) -> None:
    """Finished trials keep their results, and one that is missing is run; then each folder is this version's."""
    shutil.rmtree("study/trials/mlp-seed1")
    kept = {path: path.read_bytes() for path in written.glob("study/trials/*/result.json")}
    ended = command("study", "run", "study.json", "--out", "study", "--jobs", "1")
    assert ended.code == 0, ended.err
    assert "1/1" in ended.out
    assert {path: path.read_bytes() for path in kept} == kept
    assert Path("study/trials/mlp-seed1/result.json").is_file()


def test_another_study_does_not_continue_in_the_folder(written: Path, command: CommandLine) -> None:
    """What was added to specs since has the value that it had: another value is another trial."""
    wide = 'variants={"separate": {"decoder": {"layer": {"branches": {"feed_forward": {"wide_output": true}}}}}}'
    refused(command("study", "run", "study.json", "--out", "study", "--set", wide), 1, "trials that this study does not plan")


def test_an_interrupted_run_is_resumed(with_run: Path, command: CommandLine) -> None:
    ended = command("adapt", "run", "recipe.json", "--out", "run")
    assert ended.code == 0, ended.err
    found, expected = (
        [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()] for file in ("run/metrics.jsonl", "run.jsonl")
    )
    assert [line["step"] for line in found] == [line["step"] for line in expected] == [1, 2, 3, 4]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-4)
    assert command("adapt", "export", "run", "--out", "adapted").code == 0
    assert pairform.verify("adapted").ok


def test_a_document_of_a_newer_format_is_refused_with_what_to_do(written: Path, command: CommandLine) -> None:
    """And what that format may have added is not called a mistake."""
    newer = read_json(written / "plain" / "spec.json") | {"schema_version": 2, "added": True}
    for file in (Path("newer.json"), Path("plain/spec.json")):
        file.write_text(json.dumps(newer))
    for ref in ("newer.json", "plain"):
        with pytest.raises(SpecError, match=r"schema_version: found 2, expected 1, .* upgrade pairform") as caught:
            pairform.load_spec(ref)
        assert len(caught.value.problems) == 1
    refused(command("inspect", "newer.json"), 1, "newer.json", "schema_version", "upgrade pairform")
