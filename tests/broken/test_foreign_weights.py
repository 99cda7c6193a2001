"""Weights that are not what they seem: quantised, named by a wrapper, not finite, beyond a dtype's range, no regular file.
Each is refused at once and by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import INDEX, SINGLE, contents, edit_json, refused
from tests.checkpoints import gemma2

PROJECTION = "model.layers.0.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("healthy") / "gemma")


@pytest.fixture
def folder(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "model"))


def resave(folder: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    tensors = load_file(folder / SINGLE)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / SINGLE, {"format": "pt"})


def fill(folder: Path, name: str, values: slice, value: float) -> None:
    """Put `value` into some of a tensor's elements."""

    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[values] = value

    resave(folder, change)


def refused_as_a_source(folder: Path, *words: str) -> None:
    out = folder.parent / "new" / "out"
    refused(lambda: pairform.load(folder), *words)
    refused(lambda: pairform.plan(encoder=folder, decoder=folder), *words)
    refused(lambda: pairform.convert(encoder=folder, decoder=folder, out=out), *words)
    assert not out.parent.exists()


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes (4 bits)"),
    "bitsandbytes without its name": ({"load_in_8bit": True}, "bitsandbytes (8 bits)"),
    "GPTQ": ({"quant_method": "gptq", "bits": 4}, "gptq"),
    "AWQ": ({"quant_method": "awq", "w_bit": 4}, "awq"),
    "FP8": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    "no method": ({}, "an unnamed method"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_configuration_of_quantised_weights_is_refused_by_the_methods_name(kind: str, folder: Path) -> None:
    settings, name = SETTINGS[kind]
    edit_json(folder / "config.json", lambda config: config.update(quantization_config=settings))
    refused_as_a_source(folder, "quantization_config", f"quantised by {name}", "bfloat16")


def test_a_configuration_inside_another_is_looked_into(folder: Path) -> None:
    edit_json(
        folder / "config.json", lambda config: config.update(text_config={"quantization_config": {"quant_method": "hqq"}})
    )
    refused_as_a_source(folder, "quantised by hqq")


def beside(ending: str, dtype: torch.dtype = torch.float32) -> Callable[[Tensors], None]:
    """A tensor beside the weight, which keeps its own dtype and shape."""
    return lambda tensors: tensors.update({PROJECTION.removesuffix(".weight") + ending: torch.ones(4).to(dtype)})


def instead(ending: str, dtype: torch.dtype) -> Callable[[Tensors], None]:
    """A tensor in the place of the weight."""

    def change(tensors: Tensors) -> None:
        tensors.pop(PROJECTION)
        beside(ending, dtype)(tensors)

    return change


NAMES: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "GPTQ": (instead(".qweight", torch.int32), "GPTQ"),
    "bitsandbytes, 8 bits": (beside(".SCB"), "bitsandbytes"),
    "bitsandbytes, 4 bits": (beside(".weight.absmax"), "bitsandbytes"),
    "bitsandbytes, its state": (beside(".weight.quant_state.bitsandbytes__nf4", torch.uint8), "bitsandbytes"),
    "FP8": (beside(".weight_scale_inv"), "FP8"),
    "compressed-tensors": (instead(".weight_packed", torch.int32), "compressed-tensors"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_tensors_of_quantised_weights_are_refused_by_the_methods_name(kind: str, folder: Path) -> None:
    change, method = NAMES[kind]
    resave(folder, change)
    refused_as_a_source(folder, SINGLE, "model.layers.0.mlp.up_proj", f"quantised by {method}")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_names_that_begin_with_a_wrapper_are_one_problem(prefix: str, folder: Path) -> None:
    resave(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    message = refused(lambda: pairform.load(folder), SINGLE, repr(prefix))
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight", "model.layers.3.self_attn.k_proj.weight"])
def test_a_source_that_is_not_finite_is_not_converted(name: str, dtype: Any, value: float, folder: Path, healthy: Path) -> None:
    fill(folder, name, slice(-3, None), value)
    out = folder.parent / "out"
    words = (SINGLE, name, "3 values that are NaN or infinite")
    refused(lambda: pairform.convert(encoder=folder, decoder=healthy, out=out, dtype=dtype), *words)
    refused(lambda: pairform.convert(encoder=healthy, decoder=folder, out=out, dtype=dtype), *words)
    assert not out.exists()


def test_averaged_heads_of_a_source_that_is_not_finite_are_not_made(folder: Path, healthy: Path) -> None:
    name = "model.layers.3.self_attn.k_proj.weight"
    fill(folder, name, slice(None, 1), float("nan"))
    patch = {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}}
    refused(lambda: pairform.convert(encoder=healthy, decoder=folder, out=folder.parent / "out", patch=patch), name, "NaN")


@pytest.mark.parametrize("source", [torch.bfloat16, torch.float32])
def test_values_beyond_float16_are_refused_by_load_and_convert(source: torch.dtype, tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model", dtype=source)
    fill(folder, PROJECTION, slice(None, 2), -70_000.0)
    words = (PROJECTION, "2 values beyond float16's range", "65504", "bfloat16")
    refused(lambda: pairform.load(folder, dtype=torch.float16), *words)
    refused(lambda: pairform.convert(encoder=folder, decoder=folder, out=tmp_path / "out", dtype="float16"), *words)
    assert contents(tmp_path / "model") == contents(folder)
    assert not (tmp_path / "out").exists()
    assert pairform.load(folder, dtype=torch.bfloat16).get_parameter("decoder.norm.weight").isfinite().all()


def test_load_keeps_a_sources_own_infinities_in_any_dtype(folder: Path) -> None:
    fill(folder, "model.norm.weight", slice(None, 1), float("inf"))
    assert int(pairform.load(folder, dtype=torch.float16).get_parameter("decoder.norm.weight").isinf().sum()) == 1


def raw_file(file: Path, header: str, data: bytes = b"") -> None:
    text = header.encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_name_twice_in_a_header_is_refused(folder: Path) -> None:
    entry = '{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
    raw_file(
        folder / SINGLE, '{"model.norm.weight":' + entry % (0, 8) + ',"model.norm.weight":' + entry % (8, 16) + "}", bytes(16)
    )
    refused_as_a_source(folder, SINGLE, "model.norm.weight", "twice")


def test_a_key_twice_in_a_tensors_entry_is_refused(folder: Path) -> None:
    raw_file(folder / SINGLE, '{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', bytes(8))
    refused_as_a_source(folder, SINGLE, "dtype", "twice")


def test_a_header_nested_without_end_is_refused(folder: Path) -> None:
    raw_file(folder / SINGLE, '{"a":' * 200_000)
    refused_as_a_source(folder, SINGLE, "whole safetensors file")


def test_an_endless_tensor_without_elements_is_no_work(folder: Path) -> None:
    raw_file(folder / SINGLE, json.dumps({"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}))
    assert not pairform.verify(folder).ok
    refused_as_a_source(folder, "does not have")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123\n"


@pytest.mark.parametrize("sharded", [False, True])
def test_a_pointer_of_git_lfs_is_named_as_such(sharded: bool, folder: Path) -> None:
    file = folder / ("model-00001-of-00001.safetensors" if sharded else SINGLE)
    if sharded:
        (folder / SINGLE).unlink()
        (folder / INDEX).write_text(json.dumps({"weight_map": {PROJECTION: file.name}}))
    file.write_text(POINTER)
    refused_as_a_source(folder, file.name, "a Git LFS pointer", "git lfs pull")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("kind", "words"), [(fifo, "a named pipe"), (endless, "a character device")])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "spec.json", SINGLE, INDEX, "a shard"])
def test_what_is_no_regular_file_is_not_read(name: str, kind: Callable[[Path], None], words: str, folder: Path) -> None:
    if name in (INDEX, "a shard"):
        (folder / SINGLE).unlink()
    if name == "a shard":
        name = "model-00001-of-00001.safetensors"
        (folder / INDEX).write_text(json.dumps({"weight_map": {PROJECTION: name}}))
    (folder / name).unlink(missing_ok=True)
    kind(folder / name)
    refused_as_a_source(folder, name, words)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", INDEX])
def test_a_huge_document_is_not_read(name: str, folder: Path) -> None:
    if name == INDEX:
        (folder / SINGLE).unlink()
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)
    refused_as_a_source(folder, name, "more than the limit")
