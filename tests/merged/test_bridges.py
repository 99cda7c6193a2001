"""Pairs of unequal width, and what the decoder reads behind each bridge."""

from typing import Any

import pytest
import torch

import pairform
from tests.merged.pairs import PLACE, pair, texts, wide

UNEQUAL = [(48, 32), (24, 40)]


def ids(seed: int, rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.stack(texts(seed, (length,) * rows))


@pytest.mark.parametrize("widths", [*UNEQUAL, (32, 32)])
@pytest.mark.parametrize("bridge", ["linear", "separate_keys"])
def test_a_bridge_joins_widths_and_is_trained(bridge: str, widths: tuple[int, int]) -> None:
    model = wide(pair(widths=widths, bridge=bridge), torch.float32).train()
    model(ids(0), labels=ids(1)).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name
    if bridge == "linear":
        assert gradients["bridge.weight"] is not None
        assert gradients["bridge.weight"].shape == (widths[1], widths[0])
    else:
        own = {f"decoder.layers.{layer}.{PLACE}.block.source_{kind}_proj.weight" for layer in range(2) for kind in "kv"}
        assert {name for name in gradients if "source" in name or "bridge" in name} == own
        shapes = {tuple(model.get_parameter(name).shape) for name in own}
        assert shapes == {(2 * 8, widths[0])}


@pytest.mark.parametrize("widths", UNEQUAL)
def test_merged_attention_of_unequal_widths_needs_a_bridge(widths: tuple[int, int]) -> None:
    message = (
        f"decoder.layer.branches.self_attention: found merged attention of width {widths[1]} to a source of width "
        f"{widths[0]}, expected a source of the same width, or a bridge to it. "
        'Set the model\'s bridge: {"name": "linear"} or {"name": "separate_keys"}.'
    )
    with pytest.raises(pairform.PairformError) as caught:
        pairform.load_spec(pair(widths=widths))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (pair("cross", bridge="separate_keys"), ["bridge: found 'separate_keys'", "merged attention"]),
        (pair(bridge="lineer"), ["bridge.name", "Did you mean 'linear'?"]),
        (pair() | {"bridge": {"name": "linear", "std": 0.0}}, ["bridge.std"]),
        (pair() | {"bridge": {"name": "linear", "width": 3}}, ["bridge.width"]),
        ({"extends": "gemma-2-2b", "bridge": {"name": "linear"}}, ["bridge: found 'linear'", "decoder_only"]),
        ({"extends": "gemma-2-2b", "tie_embeddings": True}, ["tie_embeddings: found true", "decoder_only"]),
    ],
)
def test_a_bridge_that_leads_nowhere_is_an_error(document: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(pairform.PairformError) as caught:
        pairform.load_spec(document)
    assert [word for word in words if word not in str(caught.value)] == []


def test_merged_attention_without_an_encoder_is_an_error() -> None:
    swap = {"decoder": {"layer": {"branches": {PLACE: {"name": "merged_attention"}}}}}
    with pytest.raises(pairform.PairformError, match=rf"decoder\.layer\.branches\.{PLACE}: .*a decoder with an encoder"):
        pairform.load_spec("gemma-2-2b", swap)


@pytest.mark.parametrize("bias", [False, True])
def test_cross_attention_reads_over_a_linear_bridge(bias: bool) -> None:
    model = wide(pair("cross", widths=(48, 32)) | {"bridge": {"name": "linear", "bias": bias}})
    assert model.get_parameter("decoder.layers.0.cross_attention.block.k_proj.weight").shape == (16, 32)
    output = model(ids(0), decoder_input_ids=ids(1))
    weight = model.get_parameter("bridge.weight")
    read = output.encoder_last_hidden_state @ weight.T + (model.get_parameter("bridge.bias") if bias else 0)
    without = pairform.build(pair("cross", widths=(32, 32)), dtype=torch.float64)
    shared = {name: value for name, value in model.state_dict().items() if not name.startswith(("encoder", "bridge"))}
    without.load_state_dict(shared, strict=False)
    same = without(encoder_outputs=read, decoder_input_ids=ids(1))
    torch.testing.assert_close(same.logits, output.logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("widths", [(512, 128), (128, 512)])
def test_a_fresh_linear_bridge_keeps_the_mean_square(widths: tuple[int, int]) -> None:
    """Of what the encoder's norm gives, which is about 1: what keys and values were trained to read."""
    model = pairform.build(pair(widths=widths, bridge="linear", initializer_range=0.02), seed=0)
    encoded = model(ids(0), decoder_input_ids=ids(1)).encoder_last_hidden_state
    assert encoded.square().mean().item() == pytest.approx(1.0, rel=0.01)
    bridged = model.source(encoded, None).hidden
    assert bridged.shape == (2, 12, widths[1])
    assert bridged.square().mean().item() == pytest.approx(1.0, rel=0.1)
    spread = pair(widths=widths) | {"bridge": {"name": "linear", "std": 0.5}}
    assert pairform.build(spread, seed=0).get_parameter("bridge.weight").std().item() == pytest.approx(0.5, rel=0.02)


def test_vocabularies_may_differ() -> None:
    document = pair(widths=(48, 32), bridge="linear")
    document["encoder"]["vocabulary"] = 128
    model = pairform.build(document, seed=0)
    model(torch.tensor([[127, 5]]), labels=torch.tensor([[95, 1]])).loss.backward()
    assert model.get_parameter("encoder.embedding.weight").shape == (128, 48)
    assert model.get_parameter("decoder.embedding.weight").shape == model.get_parameter("head.weight").shape == (96, 32)


def test_t5gemma_becomes_merged_by_a_patch() -> None:
    """As in the paper's ablation: all fields of self-attention stay, and its weights are those of both attentions."""
    branches = {PLACE: {"name": "merged_attention"}, "cross_attention": None}
    base = pairform.load_spec("t5gemma-2b-2b")
    merged = pairform.patch(base, {"decoder": {"layer": {"branches": branches}}})
    changed = pairform.diff(base, merged)
    place = f"decoder.layer.branches.{PLACE}.name"
    assert changed[place] == ("self_attention", "merged_attention")
    assert {path for path in changed if not path.startswith("decoder.layer.branches.cross_attention")} == {place}
    saved = pairform.inspect(base).parameters["total"] - pairform.inspect(merged).parameters["total"]
    assert saved == 368_050_176 + 26 * 2 * 2304  # cross-attention, and the two norms around it in each layer
    small = {"width": 32, "depth": 2, "vocabulary": 96, "cycle": [{"branches": {PLACE: {"mask": {"window": [3, 3]}}}}, {}]}
    smaller = pairform.patch(merged, {"vocabulary": 96, "encoder": small, "decoder": small})
    model = pairform.build(smaller, seed=0)
    written = model.generate(ids(0), max_new_tokens=12, eos_token_id=())
    assert torch.equal(written, model.generate(ids(0), max_new_tokens=12, eos_token_id=(), use_cache=False))
    assert pairform.patch(merged, {"decoder": {"layer": {"branches": {PLACE: {"name": "self_attention"}}}}}) == pairform.patch(
        base, {"decoder": {"layer": {"branches": {"cross_attention": None}}}}
    )
