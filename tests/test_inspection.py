"""Costs without weights: what `inspect` counts is what torch counts and what a cache holds."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pairform
from tests.sizes import pieces

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


def test_flops_are_those_of_every_kernel() -> None:
    spec = pairform.load_spec("t5gemma-s-s", SMALL)
    tiles = pairform.patch(spec, {"encoder": {"layer": {"branches": {"self_attention": {"kernel": "chunked"}}}}})
    found, chunked = (pairform.inspect(spec, source_length=9) for spec in (spec, tiles))
    assert chunked.flops == found.flops


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


@pytest.mark.parametrize("preset", ["t5gemma-9b-2b", "t5gemma2-4b-1b", "gemma-3-270m", "t5-small", "qwen2.5-0.5b"])
def test_the_parts_add_up_to_the_model_that_is_built(preset: str) -> None:
    found = pairform.inspect(preset, source_length=2, target_length=2).document()
    assert_sums(found["tree"])
    assert found["parameters"]["total"] == found["tree"]["parameters"] == parameters(preset)


def parameters(ref: Any) -> int:
    """Of a model on the meta device, each once."""
    return sum(parameter.numel() for parameter in pairform.build(ref, device="meta").parameters())


@pytest.mark.parametrize("position", [{"name": "learned", "length": 512}, {"name": "sinusoidal"}])
def test_positions_are_a_part_of_their_stack(position: dict[str, Any]) -> None:
    spec = pairform.load_spec("t5gemma-s-s", SMALL | {"decoder": {**SMALL["decoder"], "position": position}})  # type: ignore[dict-item]
    found = pairform.inspect(spec).document()
    counts = found["parameters"]
    assert counts["total"] == parameters(spec)
    assert counts["total"] == sum(counts[name] for name in ("embedding", "encoder", "decoder", "vision", "bridge", "head"))
    assert_sums(found["tree"])
    learned = {part["name"]: part["parameters"] for part in found["tree"]["parts"][1]["parts"]}["position"]
    assert learned == (512 * 48 if position["name"] == "learned" else 0)


def test_tied_and_untied_heads_count_as_they_are() -> None:
    tied = pairform.inspect("t5gemma-s-s").parameters
    untied = pairform.inspect(pairform.load_spec("t5gemma-s-s", {"head": {"tie": None}})).parameters
    assert untied["total"] - tied["total"] == untied["head"] == 256000 * 512
    assert untied["embedding"] == tied["embedding"]


@pytest.mark.parametrize("name", [name for name in pairform.presets() if name.startswith("t5gemma2-")])
def test_a_t5gemma_2_counts_by_purpose(name: str) -> None:
    found = pairform.inspect(name, source_length=2, target_length=2).parameters
    assert found == pieces(name) | {"total": sum(pieces(name).values()), "cross_attention": 0, "head": 0}


def test_a_shared_embedding_counts_once_in_the_tree() -> None:
    tree = pairform.inspect("t5gemma2-270m-270m", source_length=2, target_length=2).document()["tree"]
    encoder, decoder, head = tree["parts"]
    assert [part["name"] for part in encoder["parts"]] == ["embedding", "vision", "layers", "norm"]
    assert [stack["parts"][0]["parameters"] for stack in (encoder, decoder)] == [262_145 * 640, 0]
    assert head["parameters"] == 0
    assert_sums(tree)
    assert_sums(pairform.inspect("t5gemma2-4b-1b", source_length=2, target_length=2).document()["tree"])


def assert_sums(part: dict[str, Any]) -> None:
    """Every part is what is inside it."""
    for inner in part.get("parts", []):
        assert_sums(inner)
    for field in ("parameters", "flops"):
        assert part[field] == sum(inner[field] for inner in part.get("parts", [part])), part["name"]


PICTURES = {
    "vocabulary": 64,
    "tie_embeddings": False,
    "head": {"tie": "decoder"},
    "encoder": {
        "width": 32,
        "depth": 7,
        "embedding": {"end_of_image": 6},
        "layer": {"branches": {"self_attention": {"mask": {"window": [2, 3]}}}},
        "vision": {
            "tower": {"width": 32, "depth": 3, "embedding": {"image_size": 8, "patch_size": 2}},
            "projector": {"tokens": 4},
            "image_token": 7,
            "begin_token": 8,
            "end_token": 6,
        },
    },
    "decoder": {
        "width": 48,
        "depth": 7,
        "embedding": {"end_of_image": 6},
        "layer": {"branches": {"self_attention": {"mask": {"window": [3, 3]}}}},
    },
}
"""A T5Gemma 2 small enough to run, of unequal widths."""
PICTURE = torch.tensor([[8, 7, 7, 7, 7, 6, 9, 9, 9]])


@pytest.mark.parametrize("bridge", ["linear", "separate_keys"])
@pytest.mark.parametrize("pictures", [0, 2])
def test_flops_of_pictures_agree_with_torchs_counter(bridge: str, pictures: int) -> None:
    spec = pairform.load_spec("t5gemma2-1b-1b", PICTURES | {"bridge": {"name": bridge}})
    found = pairform.inspect(spec, batch=2, source_length=9, target_length=7, pictures=pictures)
    source, target = (torch.zeros(2, length, dtype=torch.long, device="meta") for length in (9, 7))
    pixels = torch.empty(pictures, 3, 8, 8, device="meta") if pictures else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pairform.build(spec, device="meta")(source, decoder_input_ids=target, pixel_values=pixels)
    assert found.flops["total"] == counter.get_total_flops() > 0
    tree = found.document()["tree"]
    assert_sums(tree)
    vision = tree["parts"][0]["parts"][1]
    assert (vision["name"], vision["flops"] > 0) == ("vision", pictures > 0)


def test_cache_bytes_of_merged_attention_are_those_of_a_real_cache_in_its_parts() -> None:
    spec = pairform.load_spec("t5gemma2-1b-1b", PICTURES | {"bridge": {"name": "linear"}})
    found = pairform.inspect(spec, batch=2, source_length=9, target_length=7, pictures=2, dtype=torch.float32)
    cache = pairform.Cache()
    with torch.no_grad():
        ids = PICTURE.expand(2, -1)
        pixels = torch.rand(2, 3, 8, 8)
        pairform.build(spec, seed=0)(ids, decoder_input_ids=ids[:, 2:], pixel_values=pixels, cache=cache)
    per_token = 2 * 2 * 256 * 4
    assert found.cache_bytes["self"] == sum(part.bytes for part in cache.own.values()) == (6 * 3 + 7) * per_token
    assert found.cache_bytes["source"] == sum(part.bytes for part in cache.source.values()) == 7 * 9 * per_token


@pytest.mark.parametrize(
    ("spec", "pictures", "said"),
    [
        ("t5gemma2-270m-270m", -1, "pictures: found -1"),
        ("t5gemma2-270m-270m", 3, "3 pictures of 256 tokens in 1 x 512 tokens, expected at most 2"),
        ("gemma-3-270m", 1, "decoder has no vision"),
    ],
)
def test_pictures_that_cannot_be_are_refused(spec: str, pictures: int, said: str) -> None:
    with pytest.raises(pairform.PairformError, match=said):
        pairform.inspect(spec, pictures=pictures)


def test_counting_imports_no_compiler_and_no_computer_algebra() -> None:
    counted = ("'t5gemma-9b-2b'", "'t5gemma2-4b-1b', pictures=1", "'gemma-3-4b'", "'t5-small'", "'qwen3-0.6b'")
    lines = [
        f"pairform.inspect({arguments}); assert not {{'sympy', 'torch._dynamo'}} & sys.modules.keys(), {arguments!r}"
        for arguments in counted
    ]
    subprocess.run([sys.executable, "-c", "\n".join(["import sys, pairform", *lines])], check=True)


@pytest.mark.parametrize("field", ["batch", "source_length", "target_length"])
def test_lengths_below_one_are_refused(field: str) -> None:
    with pytest.raises(pairform.PairformError, match=field):
        pairform.inspect("t5gemma-s-s", **{field: 0})  # type: ignore[arg-type]
