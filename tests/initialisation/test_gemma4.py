"""Pairs of Gemma-4-like sources: shared keys, keys as values, experts and wide global heads, in encoders and decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.broken.damage import refused
from tests.initialisation.small_models import IDS, TOKENS
from tests.initialisation.sources import rows

RMSNORM = {"name": "rmsnorm"}
UNREAD = torch.zeros_like(IDS)
EXPERTS = {
    "name": "mixture",
    "experts": 3,
    "expert": {"name": "gated", "hidden": 12},
    "shared": {"name": "gated", "hidden": 20},
    "expert_scale": True,
    **dict.fromkeys(("router_norm", "pre_norm", "post_norm", "shared_pre_norm", "shared_post_norm", "output_norm"), RMSNORM),
}


def source(*, width: int = 32, sharing: int = 0, **layer: Any) -> dict[str, Any]:
    """Six layers, of which every third is global, and the last `sharing` read keys of earlier ones."""
    attention = {
        "name": "self_attention",
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "scale": 1.0,
        "qk_norm": RMSNORM,
        "value_norm": RMSNORM | {"affine": False},
        "position": {"name": "rope"},
        "mask": {"causal": True, "window": [2, 0]},
    }
    branches = {"self_attention": attention, "feed_forward": {"name": "gated", "hidden": 40}} | layer.pop("branches", {})
    wide = {"kv_heads": 1, "head_dim": 16, "keys_as_values": True, "position": {"theta": 1e6}, "mask": {"window": None}}
    shares = {"share_keys": True, "keys_as_values": False, "value_norm": None}
    override = {"layers": [*range(6 - sharing, 6)], "patch": {"branches": {"self_attention": shares}}}
    stack = {
        "width": width,
        "depth": 6,
        "embedding": {"name": "token", "scale": "sqrt_width"},
        "layer": {"norm": RMSNORM, "placement": "sandwich", "order": [*branches], "branches": branches} | layer,
        "cycle": [{}, {}, {"branches": {"self_attention": wide}}],
        "overrides": [override] if sharing else [],
    }
    head = {"name": "lm", "tie": "decoder", "softcap": 30.0}
    model = {"assembly": "decoder_only", "vocabulary": 50, "tokens": TOKENS, "decoder": stack, "head": head}
    return model | {"initializer_range": 0.5}


SOURCES: dict[str, dict[str, Any]] = {
    "dense": {},
    "sharing": {"sharing": 3},
    "experts": {"norms": {"feed_forward": {"name": "none"}}, "branches": {"feed_forward": EXPERTS}},
    "wider": {"width": 48, "sharing": 3},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for seed, (name, fields) in enumerate(SOURCES.items()):
        made[name] = tmp_path_factory.mktemp("sources") / name
        pairform.save(pairform.build(source(**fields), seed=seed, dtype=torch.float64), made[name])
    return made


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


PAIRS = [("dense", "dense"), ("dense", "sharing"), ("sharing", "sharing"), ("wider", "experts"), ("experts", "wider")]


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@pytest.mark.parametrize("cross_attention", ["auto", "zero_output"])
@torch.no_grad()
def test_each_stack_is_its_source(
    encoder: str, decoder: str, cross_attention: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    sources = {"encoder": folders[encoder], "decoder": folders[decoder]}
    pairform.convert(**sources, out=tmp_path / "pair", cross_attention=cross_attention)
    ours = pairform.load(tmp_path / "pair")
    old = pairform.load_spec(folders[encoder]).document()["decoder"]
    causal = {"encoder": {field: old[field] for field in ("layer", "cycle", "overrides")}}
    read = pairform.load(tmp_path / "pair", patch=causal)(IDS, decoder_input_ids=IDS).encoder_last_hidden_state
    close(read, pairform.load(folders[encoder])(IDS).last_hidden_state)
    masks = [layer.self_attention.mask for layer in ours.spec.stacks["encoder"].layers]
    assert [(mask and (mask.causal, mask.window)) for mask in masks] == [(False, (2, 2))] * 2 + [(False, None)] + [
        (False, (2, 2))
    ] * 2 + [(False, None)]
    if cross_attention == "zero_output":
        close(ours(IDS, decoder_input_ids=IDS).logits, pairform.load(folders[decoder])(IDS).logits)
    written = ours.generate(IDS, max_new_tokens=5, eos_token_id=())
    assert written.equal(ours.generate(IDS, max_new_tokens=5, eos_token_id=(), use_cache=False))


@pytest.mark.parametrize(("encoder", "decoder"), [("dense", "sharing"), ("sharing", "experts"), ("wider", "sharing")])
@torch.no_grad()
def test_a_merged_decoder_is_its_source_where_the_encoder_is_masked(
    encoder: str, decoder: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    patch = {"bridge": {"name": "separate_keys"}} if encoder == "wider" else None
    pairform.convert(
        encoder=folders[encoder], decoder=folders[decoder], out=tmp_path / "pair", source_attention="merged", patch=patch
    )
    ours = pairform.load(tmp_path / "pair")
    close(ours(IDS, UNREAD, decoder_input_ids=IDS).logits, pairform.load(folders[decoder])(IDS).logits)
    assert not ours.spec.tie_embeddings
    written = ours.generate(IDS, max_new_tokens=5, eos_token_id=())
    assert written.equal(ours.generate(IDS, max_new_tokens=5, eos_token_id=(), use_cache=False))


def test_the_changes_of_t5gemma_2_are_for_gemma_3_alone(folders: dict[str, Path]) -> None:
    plan = pairform.plan(encoder=folders["dense"], decoder=folders["dense"])
    paths = {edit.path for edit in plan.edits}
    assert not any("scaling" in path or "end_of_image" in path or "tie" in path for path in paths)
    assert "cross_attention" in plan.spec.stacks["decoder"].layers[0].branches


def test_cross_attention_of_a_layer_that_shares_keys_is_made_from_those_it_shares(folders: dict[str, Path]) -> None:
    made = rows(pairform.plan(encoder=folders["sharing"], decoder=folders["sharing"]))
    for layer, owner in ((3, 1), (4, 1), (5, 2)):
        block = f"decoder.layers.{layer}.cross_attention.block."
        assert made[block + "q_proj.weight"].source.tensor == f"decoder.layers.{layer}.self_attention.block.q_proj.weight"
        assert made[block + "k_proj.weight"].source.tensor == f"decoder.layers.{owner}.self_attention.block.k_proj.weight"
        assert (block + "v_proj.weight" in made) == (layer != 5)  # those of layer 2 are its keys


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_layers_whose_keys_others_share_are_kept(part: str, folders: dict[str, Path], tmp_path: Path) -> None:
    sources: dict[str, Any] = {"encoder": folders["sharing"], "decoder": folders["sharing"]}
    for rule, found in (("every:2", "without layer 1"), ("0,2,3,5", "without layer 1"), ("0,1,3,4,5", "without layer 2")):
        refused(lambda rule=rule: pairform.plan(**sources, **{f"{part}_layers": rule}), f"{part}_layers", found, "Keep it")
    pairform.convert(**sources, out=tmp_path / "pair", **{f"{part}_layers": "1,2,4,5"})
    assert pairform.load(tmp_path / "pair").spec.stacks[part].depth == 4
