"""Equal inputs, seed and options give equal bytes; fresh values depend on the seed and the tensor's name alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.broken.damage import contents
from tests.checkpoints import gemma2
from tests.initialisation.sources import bits, rows, tensors

FEWER = {"kv_heads": 1}
PATCH = {"vocabulary": 110, "decoder": {"layer": {"branches": {"self_attention": FEWER, "cross_attention": FEWER}}}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    parent = tmp_path_factory.mktemp("sources")
    sources = {"encoder": gemma2(parent / "encoder", shard="40KB"), "decoder": gemma2(parent / "decoder", seed=1)}
    return {**sources, "cross_attention": "random", "patch": PATCH}


@pytest.mark.parametrize("format", ["pairform", "transformers"])
@pytest.mark.parametrize("size", ["5GB", "20KB"])
def test_equal_calls_give_equal_files(format: Any, size: str, pair: dict[str, Any], tmp_path: Path) -> None:
    one, two = (
        pairform.convert(**pair, seed=4, out=tmp_path / name, format=format, max_shard_size=size).out for name in ("one", "two")
    )
    assert contents(one) == contents(two)
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in contents(one))


@pytest.mark.parametrize("size", ["1KB", "13KB", "60KB", 30_000])
def test_the_size_of_shards_changes_no_tensor(size: int | str, pair: dict[str, Any], tmp_path: Path) -> None:
    whole = tensors(pairform.convert(**pair, out=tmp_path / "whole").out)
    parts = tensors(pairform.convert(**pair, out=tmp_path / "parts", max_shard_size=size).out)
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert {name: bits(tensor) for name, tensor in whole.items()} == {name: bits(tensor) for name, tensor in parts.items()}
    checksums = [json.loads((tmp_path / name / "provenance.json").read_text())["tensors"] for name in ("whole", "parts")]
    assert checksums[0] == checksums[1]


def test_another_seed_changes_the_fresh_tensors_and_no_other(pair: dict[str, Any], tmp_path: Path) -> None:
    report = pairform.convert(**pair, seed=0, out=tmp_path / "zero")
    zero, one = tensors(report.out), tensors(pairform.convert(**pair, seed=1, out=tmp_path / "one").out)
    drawn = {
        name
        for name, row in rows(report.plan).items()
        if getattr(row.operation, "initial", None) and row.operation.initial.name == "normal"
    }
    assert drawn
    assert {name for name in zero if not zero[name].equal(one[name])} == drawn
    grown = "decoder.embedding.weight"
    assert zero[grown][:96].equal(one[grown][:96])


def test_fresh_values_depend_on_the_name_and_not_on_the_model_around_it() -> None:
    small = pairform.load_spec("t5gemma-s-s", {"vocabulary": 64, "encoder": {"depth": 1}, "decoder": {"depth": 1}})
    large = pairform.patch(small, {"vocabulary": 128, "encoder": {"depth": 3}, "decoder": {"depth": 2}})
    few, many = (dict(pairform.build(spec, seed=7).named_parameters()) for spec in (small, large))
    shared = [name for name in few if few[name].shape == many[name].shape]
    assert len(shared) == len(few) - 2, "all but the embeddings"
    assert all(few[name].equal(many[name]) for name in shared)
    assert many["encoder.embedding.weight"][:64].equal(few["encoder.embedding.weight"])


def test_every_tensor_has_values_of_its_own() -> None:
    spec = pairform.load_spec("t5gemma-s-s", {"vocabulary": 64, "encoder": {"depth": 2}, "decoder": {"depth": 2}})
    drawn = [bits(tensor) for tensor in pairform.build(spec, seed=7).parameters() if tensor.ndim == 2]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("seed", [0, -1, 2**70])
def test_build_draws_what_a_plan_draws(seed: int, pair: dict[str, Any], tmp_path: Path) -> None:
    report = pairform.convert(**pair, seed=seed, out=tmp_path / "out")
    built, made = dict(pairform.build(report.plan.spec, seed=seed).named_parameters()), tensors(report.out)
    fresh = [name for name, row in rows(report.plan).items() if row.operation.name == "fresh"]
    assert fresh
    assert all(built[name].equal(made[name]) for name in fresh)
    assert built["encoder.embedding.weight"][96:].equal(made["encoder.embedding.weight"][96:])


def test_the_global_random_state_is_neither_read_nor_changed(pair: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = pairform.convert(**pair, out=tmp_path / "one").out
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    two = pairform.convert(**pair, out=tmp_path / "two").out
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_tensors_larger_than_a_chunk_are_the_same_in_every_dtype_and_part() -> None:
    from pairform.assemblies.modeling.random_init import CHUNK, chunks
    from pairform.blocks.functional.initializers import Normal

    count = 2 * CHUNK + 5
    whole = torch.cat(list(chunks(Normal(std=0.02), "name", count, torch.float32, 3)))
    for begin in (1, CHUNK - 1, CHUNK, 2 * CHUNK + 1):
        part = torch.cat(list(chunks(Normal(std=0.02), "name", count, torch.bfloat16, 3, begin=begin)))
        assert part.equal(whole[begin:].bfloat16())
    assert abs(float(whole.std()) - 0.02) < 1e-4
    assert not whole[:CHUNK].equal(whole[CHUNK : 2 * CHUNK])
