"""What becomes of each tensor under each rule (T5Gemma, arXiv 2504.06225, section 3.2, and beyond)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.broken.damage import refused
from tests.checkpoints import gemma2, t5gemma
from tests.initialisation.sources import bits, rows, tensors

LAYERS = range(4)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("encoder") / "gemma")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma2(tmp_path_factory.mktemp("decoder") / "gemma", seed=1)


@pytest.fixture
def convert(encoder: Path, decoder: Path, tmp_path: Path) -> Any:
    """The plan's rows and the written tensors of the pair with changed arguments."""

    def run(**changes: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        out = tmp_path / "out"
        report = pairform.convert(**{"encoder": encoder, "decoder": decoder, "out": out, "overwrite": True, **changes})
        assert pairform.verify(out).ok
        return rows(report.plan), tensors(out)

    return run


def branch(name: str, /, **fields: Any) -> dict[str, Any]:
    """A patch on one branch of every decoder layer."""
    return {"decoder": {"layer": {"branches": {name: fields}}}}


def cross(layer: int, rest: str) -> str:
    return f"decoder.layers.{layer}.cross_attention.{rest}.weight"


def own(layer: int, rest: str) -> str:
    return f"decoder.layers.{layer}.self_attention.{rest}.weight"


PROJECTIONS = ["block.q_proj", "block.k_proj", "block.v_proj", "block.o_proj"]
NORMS = ["pre_norm", "post_norm"]


@pytest.mark.parametrize("mode", ["auto", "self_attention"])
def test_equal_widths_copy_cross_attention_from_self_attention(mode: str, convert: Any, decoder: Path) -> None:
    planned, made = convert(cross_attention=mode)
    source = tensors(decoder)
    for layer in LAYERS:
        for rest in (*PROJECTIONS, *NORMS):
            assert planned[cross(layer, rest)].operation.name == "copy"
            assert made[cross(layer, rest)].equal(source[own(layer, rest)])


def test_everything_but_cross_attention_is_copied_bit_for_bit(convert: Any, encoder: Path, decoder: Path) -> None:
    _, made = convert(cross_attention="random")
    for part, folder in (("encoder", encoder), ("decoder", decoder)):
        for name, tensor in tensors(folder).items():
            assert bits(made[name.replace("decoder.", f"{part}.", 1)]) == bits(tensor)


def test_unequal_widths_draw_cross_attention(convert: Any, tmp_path: Path) -> None:
    wide = gemma2(tmp_path / "wide", hidden_size=48)
    planned, made = convert(encoder=wide)
    for rest in PROJECTIONS:
        assert planned[cross(0, rest)].operation.name == "fresh"
        assert planned[cross(0, rest)].operation.initial.std == 1.0, "the source's initializer_range"
    assert made[cross(0, "block.k_proj")].shape == (16, 48)
    assert abs(float(made[cross(0, "block.q_proj")].std()) - 1) < 0.1


def test_asking_for_a_copy_that_cannot_be_says_why(encoder: Path, decoder: Path, tmp_path: Path) -> None:
    wide = gemma2(tmp_path / "wide", hidden_size=48)
    refused(
        lambda: pairform.plan(encoder=wide, decoder=decoder, cross_attention="self_attention"),
        "an encoder of width 48 beside a decoder of width 32",
        "zero_output",
    )
    fewer = branch("cross_attention", kv_heads=1)
    refused(
        lambda: pairform.plan(encoder=encoder, decoder=decoder, patch=fewer, cross_attention="self_attention"),
        "kv_heads 1 in cross-attention and 2 in self-attention",
    )


@pytest.mark.parametrize("fields", [{"heads": 8}, {"kv_heads": 4}, {"head_dim": 16}, {"scale": 0.5}, {"softcap": None}])
def test_cross_attention_of_another_geometry_is_drawn(fields: dict[str, Any], convert: Any) -> None:
    planned, _ = convert(patch=branch("cross_attention", **fields))
    assert {planned[cross(layer, rest)].operation.name for layer in LAYERS for rest in PROJECTIONS} == {"fresh"}


def test_random_draws_even_where_a_copy_would_fit(convert: Any, decoder: Path) -> None:
    planned, made = convert(cross_attention="random")
    assert {planned[cross(layer, rest)].operation.name for layer in LAYERS for rest in PROJECTIONS} == {"fresh"}
    assert not made[cross(0, "block.q_proj")].equal(tensors(decoder)[own(0, "block.q_proj")])


def test_zero_output_is_silent_and_copies_the_rest(convert: Any) -> None:
    planned, made = convert(cross_attention="zero_output")
    assert all(not made[cross(layer, "block.o_proj")].any() for layer in LAYERS)
    assert planned[cross(0, "block.q_proj")].operation.name == "copy"


def test_zero_output_behind_a_norm_of_the_sum_is_refused(encoder: Path, decoder: Path) -> None:
    patch = {"decoder": {"layer": {"placement": "post"}}}
    refused(
        lambda: pairform.plan(encoder=encoder, decoder=decoder, patch=patch, cross_attention="zero_output"),
        "placement",
        "post",
    )


def test_norms_around_cross_attention_can_start_as_the_identity(convert: Any) -> None:
    planned, made = convert(cross_attention_norms="identity")
    assert all(not made[cross(layer, rest)].any() for layer in LAYERS for rest in NORMS), "unit_offset: zero is a scale of one"
    assert planned[cross(0, "block.q_proj")].operation.name == "copy"


def test_fewer_key_heads_are_means_of_neighbours(convert: Any, decoder: Path) -> None:
    planned, made = convert(patch=branch("self_attention", kv_heads=1))
    source = tensors(decoder)
    for projection in ("k", "v"):
        name = own(2, f"block.{projection}_proj")
        heads = source[name].reshape(2, 8, 32)
        assert planned[name].operation.summary == "mean of 2 heads"
        torch.testing.assert_close(made[name], (heads[0] + heads[1]) / 2)
    assert made[own(2, "block.q_proj")].equal(source[own(2, "block.q_proj")])


def test_repeated_key_heads_change_no_output(convert: Any, encoder: Path, decoder: Path, tmp_path: Path) -> None:
    convert(cross_attention="zero_output", patch=branch("self_attention", kv_heads=4))
    ids = torch.randint(3, 96, (2, 10), generator=torch.Generator().manual_seed(0))
    made = pairform.load(tmp_path / "out")
    torch.testing.assert_close(made(ids, decoder_input_ids=ids).logits, pairform.load(decoder)(ids).logits)
    key = tensors(tmp_path / "out")[own(0, "block.k_proj")].reshape(4, 8, 32)
    assert key[0].equal(key[1])
    assert not key[1].equal(key[2])


def test_a_means_of_repeats_is_the_original(convert: Any, decoder: Path, tmp_path: Path) -> None:
    convert(patch=branch("self_attention", kv_heads=4))
    (tmp_path / "out").rename(tmp_path / "repeated")
    _, made = convert(decoder=tmp_path / "repeated", patch=branch("self_attention", kv_heads=2))
    name = own(1, "block.v_proj")
    assert made[name].equal(tensors(decoder)[name])


def test_an_untied_head_starts_as_the_tied_one(convert: Any, decoder: Path) -> None:
    planned, made = convert(patch={"head": {"tie": None}})
    assert planned["head.weight"].source.tensor == "decoder.embedding.weight"
    assert made["head.weight"].equal(tensors(decoder)["decoder.embedding.weight"])


@pytest.mark.parametrize("size", [50, 96, 130])
def test_a_vocabulary_keeps_its_rows_and_draws_new_ones(size: int, convert: Any, encoder: Path, decoder: Path) -> None:
    _, made = convert(patch={"vocabulary": size, "head": {"tie": None}})
    old = tensors(decoder)["decoder.embedding.weight"]
    kept = min(size, 96)
    for name in ("decoder.embedding.weight", "head.weight"):
        assert made[name].shape == (size, 32)
        assert made[name][:kept].equal(old[:kept])
        assert made[name][kept:].isfinite().all()
    assert made["encoder.embedding.weight"][:kept].equal(tensors(encoder)["decoder.embedding.weight"][:kept])
    if size > 96:
        assert not made["head.weight"][96:].equal(made["decoder.embedding.weight"][96:]), "each name has its own values"


def test_encoder_and_decoder_may_differ_in_vocabulary(convert: Any, tmp_path: Path) -> None:
    other = gemma2(tmp_path / "other", vocab_size=120)
    _, made = convert(encoder=other)
    assert made["encoder.embedding.weight"].equal(tensors(other)["decoder.embedding.weight"])
    assert made["decoder.embedding.weight"].shape == (96, 32)
    assert pairform.load(tmp_path / "out").spec.vocabulary_of("encoder") == 120


def test_a_branch_of_another_kind_is_drawn_and_the_source_says_so(convert: Any, encoder: Path, decoder: Path) -> None:
    patch = branch("feed_forward", name="mlp", hidden=48)
    planned, made = convert(patch=patch)
    name = "decoder.layers.0.feed_forward.block.up_proj.weight"
    assert planned[name].operation.name == "fresh"
    assert not made[name].equal(tensors(decoder)[name])
    assert planned["decoder.layers.0.feed_forward.pre_norm.weight"].operation.name == "copy"
    plan = pairform.plan(encoder=encoder, decoder=decoder, patch=patch)
    dropped = {row.source.tensor: row.dropped for row in plan.origins if row.dropped}
    assert len(dropped) == 4 * 3
    assert dropped["decoder.layers.0.feed_forward.block.gate_proj.weight"] == "the new model has no tensor for it"


def test_added_norms_of_queries_and_keys_start_as_the_identity(convert: Any) -> None:
    norm = {"name": "rmsnorm", "unit_offset": False}
    planned, made = convert(patch=branch("self_attention", qk_norm=norm))
    for name in (own(0, "block.q_norm"), own(3, "block.k_norm")):
        assert planned[name].operation.name == "fresh"
        assert made[name].equal(torch.ones(8))


@pytest.mark.parametrize(
    ("norm", "copied"),
    [
        ({"eps": 1e-5}, True),
        ({"unit_offset": False}, False),
        ({"name": "layernorm"}, False),
    ],
)
def test_norms_are_copied_only_where_their_weights_mean_the_same(norm: dict[str, Any], copied: bool, convert: Any) -> None:
    planned, made = convert(patch={"decoder": {"layer": {"norm": norm}}})
    for name in ("decoder.norm.weight", own(0, "pre_norm")):
        assert planned[name].operation.name == ("copy" if copied else "fresh")
        assert copied or made[name].equal(torch.ones(32))


def test_another_placement_drops_the_norms_it_has_no_place_for(encoder: Path, decoder: Path) -> None:
    plan = pairform.plan(encoder=encoder, decoder=decoder, patch={"decoder": {"layer": {"placement": "pre"}}})
    dropped = {row.source.tensor for row in plan.origins if row.dropped}
    assert dropped == {
        f"decoder.layers.{layer}.{name}.post_norm.weight" for layer in LAYERS for name in ("self_attention", "feed_forward")
    }


def test_one_source_can_become_an_encoder_alone(convert: Any, encoder: Path, tmp_path: Path) -> None:
    pair = pairform.plan(encoder=encoder, decoder=encoder).spec
    spec = pairform.patch(
        pair, {"assembly": "encoder_only", "decoder": None, "head": {"name": "token_classification", "labels": 3, "tie": None}}
    )
    planned, made = convert(decoder=None, spec=spec)
    assert planned["head.proj.weight"].operation.name == "fresh"
    assert made["encoder.norm.weight"].equal(tensors(encoder)["decoder.norm.weight"])
    assert {name.split(".")[0] for name in made} == {"encoder", "head"}
    assert pairform.load(tmp_path / "out")(torch.arange(3, 9)[None]).logits.shape == (1, 6, 3)


def test_a_t5gemma_gives_the_stack_of_the_same_part(convert: Any, tmp_path: Path) -> None:
    source = t5gemma(tmp_path / "t5", seed=3)
    planned, made = convert(encoder=source, decoder=source)
    for name, tensor in tensors(source).items():
        assert planned[name].source.tensor == name
        assert made[name].equal(tensor)


def test_cross_attention_of_a_source_is_kept_only_in_auto_and_beside_an_equal_width(convert: Any, tmp_path: Path) -> None:
    source = t5gemma(tmp_path / "t5", encoder={"hidden_size": 48})
    wide = gemma2(tmp_path / "wide", hidden_size=48, seed=9)
    key = cross(0, "block.k_proj")
    planned, made = convert(encoder=wide, decoder=source)
    assert made[key].equal(tensors(source)[key])
    planned, _ = convert(encoder=wide, decoder=source, cross_attention="random")
    assert planned[key].operation.name == "fresh"
    planned, made = convert(decoder=source)
    assert planned[key].source.tensor == own(0, "block.k_proj")
    plan = pairform.plan(encoder=wide, decoder=source, cross_attention="random")
    reasons = {
        row.dropped for row in plan.origins if ".cross_attention.block" in row.source.tensor and row.source.role == "decoder"
    }
    assert reasons == {"the new model's cross-attention is made in another way"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_option_dtype_casts_every_tensor_once(dtype: str, convert: Any) -> None:
    patch = branch("self_attention", kv_heads=1) | {"vocabulary": 100}
    _, plain = convert(patch=patch, cross_attention="random")
    _, cast = convert(patch=patch, cross_attention="random", dtype=dtype)
    assert plain.keys() == cast.keys()
    assert all(bits(cast[name]) == bits(tensor.to(getattr(torch, dtype))) for name, tensor in plain.items())


def test_without_it_the_pair_has_the_dtype_that_holds_both_sources(convert: Any, tmp_path: Path) -> None:
    half = gemma2(tmp_path / "half", dtype=torch.bfloat16)
    for decoder, dtype in ((None, torch.float32), (half, torch.bfloat16)):
        _, made = convert(encoder=half, cross_attention="random", **({"decoder": decoder} if decoder else {}))
        assert {tensor.dtype for tensor in made.values()} == {dtype}
