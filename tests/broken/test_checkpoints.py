"""A checkpoint that is damaged, incomplete or no checkpoint at all is refused with its file's name, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import INDEX, SINGLE, contents, edit_header, edit_json, read_file, refused, write_file
from tests.checkpoints import gemma2, t5gemma

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
FIRST, SECOND = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("healthy") / "gemma")


@pytest.fixture(scope="module")
def healthy_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = gemma2(tmp_path_factory.mktemp("shards") / "gemma", shard="60KB")
    assert (folder / FIRST).is_file()
    return folder


@pytest.fixture
def single(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "single"))


@pytest.fixture
def shards(healthy_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy_shards, tmp_path / "shards"))


def refused_everywhere(folder: Path, healthy: Path, *words: str) -> None:
    """load, plan and convert refuse the folder, as either source; no trace of the target is left."""
    parent = folder.parent
    before = contents(parent)
    refused(lambda: pairform.load(folder), *words)
    refused(lambda: pairform.plan(encoder=healthy, decoder=folder), *words)
    refused(lambda: pairform.convert(encoder=folder, decoder=healthy, out=parent / "new" / "model"), *words)
    assert contents(parent) == before


def resave(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / SINGLE)
    edit(tensors)
    save_file(tensors, folder / SINGLE, {"format": "pt"})


def truncate(folder: Path) -> None:
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:-100])


def beyond_the_end(header: dict[str, Any]) -> None:
    header[NORM]["data_offsets"][1] += 4096


def header_too_long(folder: Path) -> None:
    raw = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes((1 << 60).to_bytes(8, "little") + raw[8:])


def another_shape(header: dict[str, Any]) -> None:
    header[NORM]["shape"] = [31]


def replace_by_folder(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / SINGLE).mkdir()


WEIGHTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated": (truncate, (SINGLE, "truncated or damaged")),
    "empty": (lambda folder: (folder / SINGLE).write_bytes(b""), (SINGLE, "truncated or damaged")),
    "header only": (lambda folder: write_file(folder / SINGLE, read_file(folder / SINGLE)[0], b""), (SINGLE,)),
    "header is not JSON": (lambda folder: write_file(folder / SINGLE, "{", b""), (SINGLE, "whole safetensors file")),
    "header longer than the file": (header_too_long, (SINGLE, "whole safetensors file")),
    "tensor beyond the end": (lambda folder: edit_header(folder / SINGLE, beyond_the_end), (SINGLE,)),
    "shape unlike its bytes": (lambda folder: edit_header(folder / SINGLE, another_shape), (SINGLE,)),
    "unknown dtype": (
        lambda folder: edit_header(folder / SINGLE, lambda header: header[NORM].update(dtype="X8")),
        (SINGLE, "whole safetensors file"),
    ),
    "missing tensor": (
        lambda folder: resave(folder, lambda tensors: tensors.pop(NORM)),
        ("decoder.norm.weight", "no such tensor", "[32]"),
    ),
    "unknown tensor": (
        lambda folder: resave(folder, lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)})),
        (SINGLE, "model.extra.weight", "does not have"),
    ),
    "layer too many": (
        lambda folder: resave(
            folder, lambda tensors: tensors.update({"model.layers.4.input_layernorm.weight": torch.ones(32)})
        ),
        (SINGLE, "model.layers.4.input_layernorm.weight", "does not have"),
    ),
    "two names for one tensor": (
        lambda folder: resave(folder, lambda tensors: tensors.update({"norm.weight": torch.ones(32)})),
        (SINGLE, "decoder.norm.weight a second time"),
    ),
    "wrong shape": (
        lambda folder: resave(folder, lambda tensors: tensors.update({NORM: torch.ones(16)})),
        (SINGLE, NORM, "[16]", "[32]"),
    ),
    "int8 weights": (
        lambda folder: resave(folder, lambda tensors: tensors.update({NORM: torch.ones(32, dtype=torch.int8)})),
        (SINGLE, NORM, "I8", "BF16"),
    ),
    "no weights": (lambda folder: (folder / SINGLE).unlink(), (SINGLE, INDEX, "no weights")),
    "weights are a folder": (replace_by_folder, ("no weights",)),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_damaged_weights_are_refused(kind: str, single: Path, healthy: Path) -> None:
    damage, words = WEIGHTS[kind]
    damage(single)
    refused_everywhere(single, healthy, *words)


def missing_file(index: dict[str, Any]) -> None:
    index["weight_map"][EMBEDDING] = "model-00099-of-00003.safetensors"


def point_to(file: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / INDEX, lambda index: index["weight_map"].update({EMBEDDING: file}))


def indexed_elsewhere(folder: Path) -> None:
    """The index sends a tensor to a shard that exists and does not hold it."""
    shard = json.loads((folder / INDEX).read_text())["weight_map"][EMBEDDING]
    point_to(FIRST if shard != FIRST else SECOND)(folder)


def twice_in_two_shards(folder: Path) -> None:
    shard = json.loads((folder / INDEX).read_text())["weight_map"][NORM]
    other = FIRST if shard != FIRST else SECOND
    save_file({**load_file(folder / other), NORM: torch.ones(32)}, folder / other)


SHARDS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing shard": (lambda folder: (folder / FIRST).unlink(), (INDEX, FIRST, "not there")),
    "truncated shard": (lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-8]), (FIRST, "truncated")),
    "file that is not there": (point_to("model-00099.safetensors"), (INDEX, "model-00099.safetensors")),
    "name that is too long": (point_to("x" * 400), (INDEX, "not there")),
    "absolute path": (point_to("/etc/passwd"), (INDEX, "/etc/passwd", "plain file names")),
    "path upward": (point_to(f"../shards/{FIRST}"), (INDEX, "../shards", "plain file names")),
    "no name": (point_to(""), (INDEX, "plain file names")),
    "number for a name": (point_to(7), (INDEX, "'7'")),
    "wrong shard": (indexed_elsewhere, (INDEX, EMBEDDING, "in the index")),
    "twice in two shards": (twice_in_two_shards, (NORM,)),
    "no weight map": (lambda folder: edit_json(folder / INDEX, lambda index: index.pop("weight_map")), (INDEX, "weight_map")),
    "weight map is a list": (
        lambda folder: edit_json(folder / INDEX, lambda index: index.update(weight_map=[])),
        (INDEX, "weight_map", "[]"),
    ),
    "not JSON": (lambda folder: (folder / INDEX).write_text("{"), (INDEX, "JSON")),
    "a list": (lambda folder: (folder / INDEX).write_text("[]"), (INDEX, "[]", "object")),
    "too deep": (lambda folder: (folder / INDEX).write_text("[" * 100_000), (INDEX, "nested too deeply")),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_a_damaged_index_or_shard_is_refused(kind: str, shards: Path, healthy: Path) -> None:
    damage, words = SHARDS[kind]
    damage(shards)
    refused_everywhere(shards, healthy, *words)


CONFIGS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "not JSON": ("{", ("JSON document",)),
    "not UTF-8": (b"\xff\xfe{}", ("utf-8",)),
    "a list": ("[1, 2]", ("[1, 2]", "object")),
    "null": ("null", ("None", "object")),
    "a key twice": ('{"model_type": "gemma2", "model_type": "gemma2"}', ("'model_type' twice",)),
    "NaN": ('{"model_type": "gemma2", "rms_norm_eps": NaN}', ("NaN",)),
    "too deep": ("[" * 100_000, ("nested too deeply",)),
    "no model_type": ("{}", ("model_type", "nothing", "gemma2")),
    "unknown model_type": ('{"model_type": "rwkv"}', ("model_type", "'rwkv'", "gemma2", "docs/extend.md")),
    "a family with a reason": (
        '{"model_type": "electra"}',
        ("model_type", "'electra'", "narrow embeddings", "bert"),
    ),
    "another": ('{"model_type": "deberta-v2"}', ("model_type", "'deberta-v2'", "content and relative position", "modernbert")),
    "model_type is a list": ('{"model_type": ["gemma2"]}', ("model_type", "gemma2")),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_that_is_none_is_refused(kind: str, single: Path, healthy: Path) -> None:
    content, words = CONFIGS[kind]
    (single / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused_everywhere(single, healthy, "config.json", *words)


FIELDS: dict[str, list[Any]] = {
    "hidden_size": ["x", [], None, -1, 0, 10**30, 1.5, True],
    "num_hidden_layers": ["x", [], None, -1, 0, 10**30, 1.5, True],
    "vocab_size": ["x", [], None, -1, 0, 10**30],
    "num_attention_heads": ["x", None, -4, 10**30],
    "intermediate_size": ["x", None, -4, 10**30],
    "head_dim": ["x", None, -4, 10**30],
    "rms_norm_eps": ["x", None, -1.0, {}],
    "query_pre_attn_scalar": ["x", None, -1, 0, 10**400],
    "attn_logit_softcapping": ["x", -1.0, []],
    "sliding_window": ["x", -1, 0, 10**30],
    "layer_types": ["x", [], ["full_attention"], [["full_attention"]] * 4, ["x"] * 4, [None] * 4],
    "hidden_activation": ["tanhshrink", 3, ["gelu"]],
    "rope_parameters": ["x", [1], {"rope_type": "yarn"}, {"rope_theta": -1}, {"rope_theta": "x"}],
    "pad_token_id": ["x", -2, [0]],
    "attention_dropout": ["x", 2, -1],
    "tie_word_embeddings": ["x", 1],
    "architectures": ["Gemma2ForCausalLM", ["BertModel"], [1], 5],
    "attention_bias": ["x"],
    "initializer_range": ["x"],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in FIELDS.items() for value in values],
    ids=lambda value: str(value)[:20],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: object, single: Path, healthy: Path) -> None:
    edit_json(single / "config.json", lambda config: config.update({field: value}))
    refused_everywhere(single, healthy, "config.json", field)


@pytest.mark.parametrize(
    ("field", "value"), [("num_hidden_layers", "x"), ("layer_types", ["full_attention"]), ("hidden_size", None)]
)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_field_of_a_t5gemma_stack_is_named_with_its_stack(part: str, field: str, value: object, tmp_path: Path) -> None:
    folder = t5gemma(tmp_path / "t5")
    edit_json(folder / "config.json", lambda config: config[part].update({field: value}))
    refused(lambda: pairform.load(folder), f"{part}.{field}")


@pytest.mark.parametrize(
    ("field", "value", "tensor"),
    [
        ("hidden_size", 64, EMBEDDING),
        ("intermediate_size", 50, "mlp.gate_proj"),
        ("num_attention_heads", 8, "self_attn.q_proj"),
        ("num_key_value_heads", 4, "self_attn.k_proj"),
        ("head_dim", 16, "self_attn.q_proj"),
        ("vocab_size", 97, EMBEDDING),
    ],
)
def test_a_configuration_of_another_size_names_the_tensor(
    field: str, value: int, tensor: str, single: Path, healthy: Path
) -> None:
    edit_json(single / "config.json", lambda config: config.update({field: value}))
    refused_everywhere(single, healthy, SINGLE, tensor, "as the configuration says")


def test_heads_that_do_not_divide_are_refused(single: Path, healthy: Path) -> None:
    edit_json(single / "config.json", lambda config: config.update(num_key_value_heads=3))
    refused_everywhere(single, healthy, "config.json", "kv_heads (3) to divide heads (4)")


def test_a_folder_without_configuration_is_refused(single: Path, healthy: Path) -> None:
    (single / "config.json").unlink()
    refused_everywhere(single, healthy, "config.json", "no such file", "spec.json")


def test_an_empty_folder_is_refused(tmp_path: Path, healthy: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused_everywhere(tmp_path / "empty", healthy, "config.json", "no such file")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickles_are_refused_with_the_reason_and_never_opened(name: str, single: Path, healthy: Path) -> None:
    (single / SINGLE).unlink()
    torch.save({"trap": Trap(single.parent / "sprung")}, single / name)
    refused_everywhere(single, healthy, "pickle", "safetensors", "any code")
    assert not (single.parent / "sprung").exists()


@pytest.mark.parametrize("ref", ["", "no such name", "/no/such/folder", "~nobody/model", "x" * 5000, "x\0y", 5, None, b"x"])
def test_a_source_that_cannot_be_is_refused(ref: Any) -> None:
    refused(lambda: pairform.load(ref), "hub id")


def test_a_file_as_source_is_refused(single: Path, healthy: Path) -> None:
    refused(lambda: pairform.load(single / SINGLE), SINGLE, "a file")
    refused(lambda: pairform.plan(encoder=single / "config.json", decoder=healthy), "config.json", "a file")


def test_a_revision_of_a_folder_is_refused(healthy: Path) -> None:
    refused(lambda: pairform.load(healthy, revision="main"), str(healthy), "'main'")
    refused(lambda: pairform.plan(encoder=healthy, decoder=healthy, revisions={"encodr": "main"}), "revisions.encodr")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_repository_out_of_reach_is_named(revision: str | None, tmp_path: Path) -> None:
    message = refused(lambda: pairform.load("nobody/no-model", revision=revision), "nobody/no-model", "in reach")
    assert revision is None or "'v2'" in message
    assert not (tmp_path / "hub" / "models--nobody--no-model" / "snapshots").exists()


def loads_or_is_refused(folder: Path) -> None:
    try:
        pairform.load(folder)
    except pairform.PairformError as error:
        assert folder.name in str(error)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


@FUZZ
@given(data=st.data())
def test_any_damage_to_a_header_is_refused_or_harmless(data: st.DataObject, single: Path, healthy: Path) -> None:
    raw = bytearray((healthy / SINGLE).read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, header - 1), st.integers(0, 255)), min_size=1, max_size=4)):
        raw[place] = byte
    (single / SINGLE).write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    loads_or_is_refused(single)


@FUZZ
@given(data=st.data())
def test_any_damage_to_an_index_is_refused_or_harmless(data: st.DataObject, shards: Path, healthy_shards: Path) -> None:
    raw = bytearray((healthy_shards / INDEX).read_bytes())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        raw[place] = byte
    (shards / INDEX).write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    loads_or_is_refused(shards)
