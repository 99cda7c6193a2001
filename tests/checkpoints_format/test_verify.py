"""verify finds what has changed since a folder was written, and values that no model should have."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import INDEX, SINGLE, edit_header, edit_json, read_file, refused, write_file
from tests.checkpoints import gemma2, t5gemma

NAMES = {
    "pairform": "decoder.layers.2.cross_attention.block.q_proj.weight",
    "transformers": "model.decoder.layers.2.cross_attn.q_proj.weight",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    parent = tmp_path_factory.mktemp("sources")
    return {"encoder": gemma2(parent / "encoder"), "decoder": gemma2(parent / "decoder", seed=1)}


@pytest.fixture(params=["pairform", "transformers"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(format: str, sources: dict[str, Any], tmp_path: Path) -> Path:
    return pairform.convert(**sources, out=tmp_path / "pair", format=format, max_shard_size="60KB").out  # type: ignore[arg-type]


def holder(folder: Path, name: str) -> Path:
    """The shard that holds a tensor."""
    return next(file for file in sorted(folder.glob("*.safetensors")) if name in read_file(file)[0])


def put(file: Path, name: str, value: float, count: int) -> None:
    tensors = load_file(file)
    tensors[name].view(-1)[:count] = value
    save_file(tensors, file, {"format": "pt"})


def problems(folder: Path) -> list[str]:
    found = pairform.verify(folder)
    assert found.ok == (not found.problems)
    return [str(problem) for problem in found.problems]


def test_a_folder_as_it_was_written_is_well(folder: Path) -> None:
    found = pairform.verify(folder)
    assert found.ok
    assert found.checksums
    assert found.parameters == sum(tensor.numel() for tensor in pairform.load(folder).parameters())
    assert found.tensors == len(list(pairform.load(folder).parameters()))


@pytest.mark.parametrize("make", [gemma2, t5gemma])
def test_a_folder_of_transformers_is_well_without_checksums(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = pairform.verify(make(tmp_path / "model"))
    assert (found.ok, found.checksums) == (True, False)


def test_a_saved_model_is_well(folder: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(folder), tmp_path / "saved", max_shard_size="20KB")
    assert pairform.verify(tmp_path / "saved").checksums
    assert problems(tmp_path / "saved") == []


def test_one_flipped_bit_names_its_tensor(folder: Path, format: str) -> None:
    name = NAMES[format]
    file = holder(folder, name)
    header, data = read_file(file)
    place = header[name]["data_offsets"][0] + 5
    write_file(file, header, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    (only,) = problems(folder)
    assert name in only
    assert "checksum" in only
    assert "provenance.json" in only


@pytest.mark.parametrize(("value", "count"), [(float("nan"), 1), (float("inf"), 3), (-float("inf"), 7)])
def test_values_that_are_not_finite_are_named_and_counted(value: float, count: int, folder: Path, format: str) -> None:
    name = NAMES[format]
    put(holder(folder, name), name, value, count)
    assert any(name in problem and f"{count} values that are NaN or infinite" in problem for problem in problems(folder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_values_are_checked_in_every_dtype_and_without_provenance(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "gemma", dtype=dtype)
    put(folder / SINGLE, "model.norm.weight", float("nan"), 2)
    (only,) = problems(folder)
    assert "model.norm.weight: found 2 values" in only


def test_nan_in_a_source_stays_in_an_export_and_is_found(tmp_path: Path) -> None:
    bad = gemma2(tmp_path / "bad")
    put(bad / SINGLE, "model.norm.weight", float("nan"), 2)
    pairform.export(bad, tmp_path / "out", format="pairform")
    assert len([problem for problem in problems(tmp_path / "out") if "2 values that are NaN" in problem]) == 1


def test_weights_that_transformers_would_read_in_place_of_the_shards_are_found(tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "shards", shard="60KB")
    shutil.copy(gemma2(tmp_path / "other", seed=1) / SINGLE, folder / SINGLE)
    (only,) = problems(folder)
    assert SINGLE in only
    assert INDEX in only
    norm = pairform.load(folder).get_parameter("decoder.norm.weight")
    assert norm.equal(load_file(folder / SINGLE)["model.norm.weight"])


def test_the_same_bytes_as_another_dtype_are_found(folder: Path, format: str) -> None:
    half = folder.parent / "half"
    pairform.save(pairform.load(folder, dtype=torch.float16), half, max_shard_size="5GB")
    edit_header(half / SINGLE, lambda header: [entry.update(dtype="BF16") for entry in header.values() if "dtype" in entry])
    found = problems(half)
    assert any("the dtype BF16" in problem and "'F16', as in provenance.json" in problem for problem in found)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    (only,) = problems(folder)
    assert shard.name in only
    assert INDEX in only


def test_a_truncated_shard_is_named_and_nothing_raises(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert any(shard.name in problem and "truncated" in problem for problem in problems(folder))


def test_a_changed_spec_is_found_by_the_shapes(sources: dict[str, Any], tmp_path: Path) -> None:
    out = pairform.convert(**sources, out=tmp_path / "pair").out
    edit_json(out / "spec.json", lambda spec: spec["decoder"]["layer"]["branches"]["feed_forward"].update(hidden=64))
    assert any("decoder.layers.0.feed_forward" in problem and "[64, 32]" in problem for problem in problems(out))
    edit_json(out / "spec.json", lambda spec: spec.update(colour="blue"))
    assert any("spec.json" in problem and "colour" in problem for problem in problems(out))
    (out / "spec.json").unlink()
    assert any("spec.json" in problem for problem in problems(out))


@pytest.mark.parametrize("content", ["{", "[]", '{"tensors": 5}', '{"tensors": {}}', '{"tensors": {"x": "00000000"}}', "{}"])
def test_provenance_that_does_not_fit_is_a_problem(content: str, folder: Path) -> None:
    (folder / "provenance.json").write_text(content)
    assert any("provenance.json" in problem for problem in problems(folder))


def test_a_tensor_too_many_and_one_too_few_are_named(folder: Path, format: str) -> None:
    name = NAMES[format]
    file = holder(folder, name)
    tensors = load_file(file)
    tensors["extra"] = tensors.pop(name)
    save_file(tensors, file, {"format": "pt"})
    found = "\n".join(problems(folder))
    assert name in found
    assert "extra" in found


@pytest.mark.parametrize("ref", ["no such folder", "", None])
def test_what_is_no_folder_is_an_error(ref: str) -> None:
    refused(lambda: pairform.verify(ref), "hub id")


def test_verify_reads_and_does_not_write(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    pairform.verify(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
