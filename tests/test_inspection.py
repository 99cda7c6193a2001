"""Costs without weights: what `inspect` counts is what torch counts and what a cache holds."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pairform

SMALL = {
    "vocabulary": 64,
    "encoder": {"width": 32, "depth": 5, "layer": {"branches": {"self_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8}}}},
    "decoder": {
        "width": 48,
        "depth": 3,
        "cycle": [{"branches": {"self_attention": {"mask": {"window": [5, 5]}}}}, {}],
        "overrides": [{"layers": [2], "patch": {"branches": {"cross_attention": None}}}],
    },
}


@pytest.mark.parametrize("kernel", ["eager", "auto"])
def test_flops_agree_with_torchs_counter_on_the_meta_device(kernel: str) -> None:
    softcap = None if kernel == "auto" else 50.0
    attention = {"self_attention": {"softcap": softcap, "kernel": kernel}}
    patch = {**SMALL, "encoder": {**SMALL["encoder"], "layer": {"branches": attention}}}  # type: ignore[dict-item]
    spec = pairform.load_spec("t5gemma-s-s", patch)
    found = pairform.inspect(spec, batch=2, source_length=9, target_length=7)
    source, target = (torch.zeros(2, length, dtype=torch.long, device="meta") for length in (9, 7))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pairform.build(spec, device="meta")(source, decoder_input_ids=target)
    assert found.flops["total"] == counter.get_total_flops() > 0
    assert found.flops["total"] == sum(found.flops[part] for part in ("encoder", "decoder", "head"))


def test_cache_bytes_are_those_of_a_real_cache() -> None:
    spec = pairform.load_spec("t5gemma-s-s", SMALL)
    found = pairform.inspect(spec, batch=2, source_length=9, target_length=7, dtype=torch.float32)
    cache = pairform.Cache()
    ids = torch.full((2, 9), 5)
    with torch.no_grad():
        pairform.build(spec, seed=0)(ids, decoder_input_ids=ids[:, :7], cache=cache)
    assert found.cache_bytes["total"] == cache.bytes
    assert found.cache_bytes["self"] == sum(part.bytes for part in cache.own.values())


def test_a_local_layers_cache_stops_at_its_window() -> None:
    lengths = [pairform.inspect("gemma-2-2b", target_length=length).cache_bytes["self"] for length in (4095, 8190)]
    per_token = 26 * 2 * 4 * 256 * 2
    assert lengths == [4095 * per_token, 4095 * per_token // 2 + 8190 * per_token // 2]


def test_the_parts_add_up() -> None:
    found = pairform.inspect("t5gemma-9b-2b").document()
    tree = found["tree"]
    assert tree["parameters"] == sum(part["parameters"] for part in tree["parts"]) == found["parameters"]["total"]
    for stack in tree["parts"][:2]:
        assert stack["parameters"] == sum(part["parameters"] for part in stack["parts"])
        layers = stack["parts"][1]
        assert layers["parameters"] == sum(branch["parameters"] for branch in layers["parts"])


def test_tied_and_untied_heads_count_as_they_are() -> None:
    tied = pairform.inspect("t5gemma-s-s").parameters
    untied = pairform.inspect(pairform.load_spec("t5gemma-s-s", {"head": {"tie": None}})).parameters
    assert untied["total"] - tied["total"] == untied["head"] == 256000 * 512
    assert untied["embedding"] == tied["embedding"]


@pytest.mark.parametrize("field", ["batch", "source_length", "target_length"])
def test_lengths_below_one_are_refused(field: str) -> None:
    with pytest.raises(pairform.PairformError, match=field):
        pairform.inspect("t5gemma-s-s", **{field: 0})  # type: ignore[arg-type]
