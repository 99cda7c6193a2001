"""Norms against torch's and the formulas in float64, and where they may stand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pairform
from pairform.blocks.functional import blocked_ops

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


def torch_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """The RMS norm of torch's operators."""
    return torch.rms_norm(hidden.to(weight.dtype), weight.shape, 1 + weight, 1e-6).to(hidden.dtype)


def many_rows(dtype: torch.dtype, layout: str) -> tuple[Tensor, Any]:
    """Hidden states of 15 rows, the last dimension in order, and an RMS norm of width 8."""
    norm = final_norm("rmsnorm", unit_offset=True).to(torch.float64 if dtype == torch.float64 else torch.float32)
    hidden = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    hidden = hidden.transpose(0, 1).contiguous().transpose(0, 1) if layout == "transposed" else hidden
    hidden = hidden[..., ::2].repeat_interleave(2, -1)[:, ::2] if layout == "gaps" else hidden
    return hidden.to(dtype).requires_grad_(), norm


@pytest.fixture
def four_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_ops, "AT_ONCE", 32)


@pytest.mark.usefixtures("four_rows_at_once")
@pytest.mark.parametrize("layout", ["dense", "transposed", "gaps"])
def test_gradients_of_an_rmsnorm_over_many_rows_are_torchs(layout: str) -> None:
    hidden, norm = many_rows(torch.float64, layout)

    def function(hidden: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, hidden)

    weight = norm.weight.detach().clone().requires_grad_()
    assert torch.equal(function(hidden, weight), torch_norm(hidden, weight))
    assert torch.autograd.gradcheck(function, (hidden, weight))
    assert torch.autograd.gradgradcheck(function, (hidden, weight))
    for frozen in (hidden, weight):
        frozen.requires_grad_(False)
        for again in (False, True):  # with and without a graph of the gradients
            found, expected = (
                torch.autograd.grad(
                    each(hidden, weight).cos().sum(), weight if frozen is hidden else hidden, create_graph=again
                )
                for each in (function, torch_norm)
            )
            torch.testing.assert_close(found, expected)
        frozen.requires_grad_()


@pytest.mark.usefixtures("four_rows_at_once")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_they_are_as_exact_as_torchs(dtype: torch.dtype) -> None:
    """float64 is the judge; in half precision they are rounded once."""
    hidden, norm = many_rows(dtype, "transposed")
    given = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact, weight = hidden.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = torch.autograd.grad(torch_norm(exact, weight), (exact, weight), given.double())
    found = torch.autograd.grad(norm(hidden), (hidden, norm.weight), given)
    composed = torch.autograd.grad(torch_norm(hidden, norm.weight), (hidden, norm.weight), given)
    for mine, theirs, judge in zip(found, composed, expected, strict=True):
        assert mine.dtype == theirs.dtype
        bound = 2 * (theirs - judge).abs().max() + torch.finfo(torch.float32).eps * judge.abs().max()
        assert (mine - judge).abs().max() <= bound
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.autograd.grad(norm(hidden), (hidden, norm.weight), given)
    assert all(map(torch.equal, again, found)), "autocast changes nothing"


def test_an_rmsnorm_keeps_its_input_and_a_number_for_each_row() -> None:
    norm = final_norm("rmsnorm").float()
    hidden = torch.randn(10_000, 8, requires_grad=True)
    kept: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        norm(hidden)
    assert sum(kept.values()) <= hidden.nbytes * (1 + 1 / 8) + norm.weight.nbytes


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
