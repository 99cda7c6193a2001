"""Norms against torch's and the formulas in float64, and where they may stand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pairform

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 0, 0]])
NORMS = ("rmsnorm", "layernorm", "scalenorm", "dynamic_tanh", "none")


def small(**layer: Any) -> pairform.Model:
    """A decoder of two layers with one feed-forward each, all weights random."""
    branches = {"feed_forward": {"name": "mlp", "hidden": 12, "activation": "relu"}}
    layers = {"norm": {"name": "none"}, "order": ["feed_forward"], "branches": branches, **layer}
    stack = {"width": 8, "depth": 2, "embedding": {"name": "token"}, "layer": layers}
    document = {"assembly": "decoder_only", "vocabulary": 11, "tokens": {"pad": 0}, "decoder": stack, "head": {"name": "lm"}}
    model = pairform.build(document, seed=0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def final_norm(name: str, **fields: Any) -> Any:
    return small(norm={"name": name, **fields}).get_submodule("decoder.norm")


def scalenorm(hidden: Tensor, norm: nn.Module) -> Tensor:
    return norm.get_parameter("weight") * hidden / hidden.pow(2).sum(-1, keepdim=True).sqrt()


def dynamic_tanh(hidden: Tensor, norm: nn.Module) -> Tensor:
    weight, bias, alpha = (norm.get_parameter(name) for name in ("weight", "bias", "alpha"))
    growth = (2 * alpha * hidden).exp()
    return weight * (growth - 1) / (growth + 1) + bias


@pytest.mark.parametrize("formula", [scalenorm, dynamic_tanh])
def test_it_is_its_formula(formula: Any) -> None:
    norm = final_norm(formula.__name__)
    hidden = torch.randn(2, 3, 8, dtype=torch.float64) * 3
    torch.testing.assert_close(norm(hidden), formula(hidden, norm))
    half = hidden.bfloat16()
    assert torch.equal(norm.bfloat16()(half), norm.float()(half.float()).bfloat16()), "computed in float32"


def test_fresh_norms_begin_as_in_their_papers() -> None:
    for name, expected in {"scalenorm": {"weight": 8**0.5}, "dynamic_tanh": {"alpha": 0.5, "weight": 1.0, "bias": 0.0}}.items():
        spec = pairform.patch(small().spec, {"decoder": {"layer": {"norm": {"name": name}}}})
        fresh = dict(pairform.build(spec, seed=0).get_submodule("decoder.norm").named_parameters())
        assert set(fresh) == set(expected)
        for parameter, value in expected.items():
            torch.testing.assert_close(fresh[parameter], torch.full_like(fresh[parameter], value))


def test_a_scalenorm_of_nothing_is_zero_and_has_a_gradient() -> None:
    hidden = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    normed = final_norm("scalenorm")(hidden)
    normed.sum().backward()
    assert not normed.any()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_dynamic_tanh_may_have_no_bias() -> None:
    assert {name for name, _ in final_norm("dynamic_tanh", bias=False).named_parameters()} == {"alpha", "weight"}


PLACED = {
    "pre": lambda hidden, block, norms: hidden + block(norms[0](hidden)),
    "post": lambda hidden, block, norms: norms[0](hidden + block(hidden)),
    "sandwich": lambda hidden, block, norms: hidden + norms[1](block(norms[0](hidden))),
}


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("name", NORMS)
def test_each_norm_stands_where_its_placement_says(name: str, placement: str) -> None:
    model = small(norm={"name": name}, placement=placement)
    decoder: Any = model.decoder
    hidden = functional.embedding(IDS, decoder.embedding.weight)
    for layer in decoder.layers:
        branch = layer.feed_forward
        up, down = branch.block.up_proj.weight, branch.block.down_proj.weight
        norms = [getattr(branch, norm) for norm in ("pre_norm", "post_norm") if getattr(branch, norm) is not None]
        assert len(norms) == 1 + (placement == "sandwich")

        def block(hidden: Tensor, up: Tensor = up, down: Tensor = down) -> Tensor:
            return functional.relu(hidden @ up.T) @ down.T

        hidden = PLACED[placement](hidden, block, norms)
    output = model(IDS, output_hidden_states=True)
    assert output.last_hidden_state is not None
    torch.testing.assert_close(output.last_hidden_state, decoder.norm(hidden))


@pytest.mark.parametrize("name", NORMS)
def test_each_norm_normalises_queries_and_keys(name: str) -> None:
    attention = {"name": "self_attention", "heads": 2, "mask": {"causal": True}, "position": {"name": "none"}}
    attention |= {"qk_norm": {"name": name}}
    model = small(order=["self_attention"], branches={"self_attention": attention})
    decoder: Any = model.decoder
    block = decoder.layers[0].self_attention.block
    hidden = functional.embedding(IDS, decoder.embedding.weight)
    query, key, value = (
        (hidden @ projection.weight.T).unflatten(-1, (2, 4)).transpose(1, 2)
        for projection in (block.q_proj, block.k_proj, block.v_proj)
    )
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    scores = (block.q_norm(query) @ block.k_norm(key).transpose(-1, -2) / 2).masked_fill(~mask, -torch.inf)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    expected = hidden + mixed @ block.o_proj.weight.T
    states = model(IDS, torch.ones_like(IDS), output_hidden_states=True).hidden_states
    assert states is not None
    torch.testing.assert_close(states[1], expected)
    cached = model.generate(IDS[:1], max_new_tokens=5)
    assert torch.equal(cached, model.generate(IDS[:1], max_new_tokens=5, use_cache=False))
