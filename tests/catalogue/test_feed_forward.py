"""Feed-forwards against torch's functions, transformers' mixtures and the formulas in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextDecoderLayer
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

import pairform
from pairform.assemblies.modeling.inputs import StackInputs
from pairform.blocks.functional.gelu import gelu_tanh

IDS = torch.tensor([[5, 6, 7, 8, 9, 3], [9, 3, 4, 8, 2, 2]])
EXPERT = {"name": "gated", "hidden": 12, "activation": "silu"}
ATTENTION = {"name": "self_attention", "heads": 2, "mask": {"causal": True}}


def document(feed_forward: dict[str, Any], **fields: Any) -> dict[str, Any]:
    branches = {"self_attention": dict(ATTENTION), "feed_forward": feed_forward}
    layer = {"norm": {"name": "rmsnorm"}, "order": list(branches), "branches": branches}
    stack = {"width": 8, "depth": 2, "embedding": {"name": "token"}, "layer": layer}
    sides = {"decoder": stack, "assembly": "decoder_only", **fields}
    return {"vocabulary": 11, "tokens": {"pad": 0, "bos": 2}, "head": {"name": "lm"}, "initializer_range": 0.5, **sides}


def mixture(**fields: Any) -> dict[str, Any]:
    return {"name": "mixture", "experts": 5, "expert": EXPERT, **fields}


def model(feed_forward: dict[str, Any]) -> pairform.Model:
    return pairform.build(document(feed_forward), seed=0, dtype=torch.float64)


def test_an_expert_without_tokens_has_a_gradient_of_zero_where_experts_alone_are_trained() -> None:
    """Data-parallel training waits for it."""
    made = model(mixture(experts=16, top_k=1)).requires_grad_(False).train()
    experts = block(made).experts.requires_grad_(True)
    loss = made(IDS[:1], labels=IDS[:1]).loss
    assert loss is not None
    loss.backward()
    assert all(parameter.grad is not None for parameter in experts.parameters())


def block(model: pairform.Model) -> Any:
    return model.get_submodule("decoder.layers.0.feed_forward.block")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda inner: functional.gelu(inner, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
    "relu_squared": lambda inner: inner.clamp(min=0) ** 2,
    "sigmoid": lambda inner: 1 / (1 + (-inner).exp()),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["mlp", "gated"])
def test_each_activation_is_its_formula(name: str, activation: str) -> None:
    found = block(model({"name": name, "hidden": 12, "activation": activation}))
    hidden = torch.randn(2, 3, 8, dtype=torch.float64)
    inner = ACTIVATIONS[activation]((found.gate_proj if name == "gated" else found.up_proj)(hidden))
    inner = inner * found.up_proj(hidden) if name == "gated" else inner
    torch.testing.assert_close(found(hidden, None), inner @ found.down_proj.weight.T)


def routed(hidden: Tensor, block: Any, normalise: bool) -> Tensor:
    """The mixture by the definition, token by token."""
    made = torch.zeros_like(hidden)
    for row, place in torch.cartesian_prod(torch.arange(hidden.shape[0]), torch.arange(hidden.shape[1])):
        token = hidden[row, place]
        weights = (block.router @ token).softmax(0)
        best = weights.sort(descending=True).indices[: block.spec.top_k]
        total = weights[best].sum() if normalise else 1.0
        for expert in best:
            made[row, place] += weights[expert] / total * block.experts[expert](token[None, None], None)[0, 0]
    return made


RMSNORM = {"name": "rmsnorm"}
SIDES = {
    "expert_scale": True,
    "router_norm": RMSNORM,
    "router_scale": "inverse_sqrt_width",
    "pre_norm": RMSNORM,
    "post_norm": RMSNORM,
    "shared": {"name": "gated", "hidden": 20, "activation": "silu"},
    "shared_pre_norm": RMSNORM,
    "shared_post_norm": RMSNORM,
    "output_norm": RMSNORM,
}
"""Experts beside a dense feed-forward block, as in Gemma 4 26B-A4B."""
CASES: dict[str, dict[str, Any]] = {
    "top 1": {"top_k": 1, "normalise": False},
    "top 2": {},
    "all": {"top_k": 5},
    "shared": {"shared": {"name": "mlp", "hidden": 4}},
    "other experts": {"expert": {"name": "mlp", "hidden": 6, "activation": "relu_squared", "bias": True}},
}


@pytest.mark.parametrize("what", CASES)
def test_a_mixture_is_its_definition_and_drops_nothing(what: str) -> None:
    built = model(mixture(**CASES[what]))
    found = block(built)
    hidden = torch.randn(2, 6, 8, dtype=torch.float64)
    expected = routed(hidden, found, CASES[what].get("normalise", True))
    if found.shared is not None:
        expected = expected + found.shared(hidden, None)
    torch.testing.assert_close(found(hidden, pairform.Context(torch.arange(6)[None])), expected)
    output = built(IDS, labels=IDS)
    assert output.loss is not None
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    cached = built.generate(IDS, max_new_tokens=4, eos_token_id=())
    assert torch.equal(cached, built.generate(IDS, max_new_tokens=4, eos_token_id=(), use_cache=False))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_mixture_is_transformers(normalise: bool) -> None:
    sizes = {"hidden_size": 8, "num_experts_per_tok": 2, "hidden_act": "silu"}
    if normalise:
        theirs: Any = MixtralSparseMoeBlock(transformers.MixtralConfig(num_local_experts=5, intermediate_size=12, **sizes))
    else:
        config = transformers.Qwen3MoeConfig(num_experts=5, moe_intermediate_size=12, norm_topk_prob=False, **sizes)
        config._experts_implementation = "eager"
        theirs = Qwen3MoeSparseMoeBlock(config)
    ours = block(model(mixture(normalise=normalise))).float()
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router)
        for expert, gate_up, down in zip(ours.experts, theirs.experts.gate_up_proj, theirs.experts.down_proj, strict=True):
            gate_up.copy_(torch.cat((expert.gate_proj.weight, expert.up_proj.weight)))
            down.copy_(expert.down_proj.weight)
    hidden = torch.randn(2, 6, 8)
    torch.testing.assert_close(ours(hidden, pairform.Context(torch.arange(6)[None])), theirs(hidden))


def test_experts_beside_a_dense_block_are_gemma_4s() -> None:
    sizes = {"hidden_size": 8, "hidden_size_per_layer_input": 0, "intermediate_size": 20, "moe_intermediate_size": 12}
    config = transformers.Gemma4TextConfig(
        enable_moe_block=True, num_experts=5, top_k_experts=2, hidden_activation="silu", num_hidden_layers=1, **sizes
    )
    config._experts_implementation = "eager"
    theirs: Any = Gemma4TextDecoderLayer(config, 0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours = block(model(mixture(**SIDES))).float()
    names = {
        "router": theirs.router.proj.weight,
        "router_norm.weight": theirs.router.scale,
        "expert_scale": theirs.router.per_expert_scale,
        "pre_norm.weight": theirs.pre_feedforward_layernorm_2.weight,
        "post_norm.weight": theirs.post_feedforward_layernorm_2.weight,
        "shared_pre_norm.weight": theirs.pre_feedforward_layernorm.weight,
        "shared_post_norm.weight": theirs.post_feedforward_layernorm_1.weight,
        "output_norm.weight": theirs.post_feedforward_layernorm.weight,
    }
    weights = names | {f"shared.{name}": weight for name, weight in theirs.mlp.state_dict().items()}
    for number, (gate_up, down) in enumerate(zip(theirs.experts.gate_up_proj, theirs.experts.down_proj, strict=True)):
        weights[f"experts.{number}.gate_proj.weight"], weights[f"experts.{number}.up_proj.weight"] = gate_up.chunk(2)
        weights[f"experts.{number}.down_proj.weight"] = down
    ours.load_state_dict(weights)
    theirs.self_attn.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states), None)
    hidden = torch.randn(2, 6, 8)
    found = ours(hidden, pairform.Context(torch.arange(6)[None]))
    torch.testing.assert_close(hidden + found, theirs(hidden))


def router_logits(model: pairform.Model, mask: Tensor | None) -> list[Tensor]:
    """What each layer's router reads and says, seen from outside."""
    seen: list[Tensor] = []
    layers: Any = model.get_submodule("decoder.layers")
    blocks = [layer.feed_forward.block for layer in layers]
    hooks = [
        block.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0] @ module.router.T)) for block in blocks
    ]
    model(IDS, mask)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])])
def test_auxiliary_losses_are_those_of_the_papers(mask: Tensor | None) -> None:
    built = model(mixture(balance=0.3, z_loss=0.7))
    plain = built(IDS, mask, labels=IDS)
    logits = router_logits(built, mask)
    # transformers' counts each token's choices, ours the share of all choices, so theirs is top_k times as large
    balance = sum(load_balancing_loss_func((layer.flatten(0, 1),), 5, 2, mask) for layer in logits) / 2
    real = torch.ones_like(IDS) if mask is None else mask
    z_loss = sum((layer.logsumexp(-1)[real.bool()] ** 2).mean() for layer in logits)
    output = built.train()(IDS, mask, labels=IDS)
    torch.testing.assert_close(output.auxiliary_loss, 0.3 * balance + 0.7 * z_loss)
    torch.testing.assert_close(output.loss, plain.loss + output.auxiliary_loss)
    assert plain.auxiliary_loss is None, "a loss that is measured is the head's alone"


def test_an_even_load_costs_one_and_training_makes_it_even() -> None:
    built = model(mixture(balance=1.0, top_k=1)).train()
    optimizer = torch.optim.Adam(built.parameters(), lr=0.01)
    ids = torch.randint(3, 11, (8, 16))
    costs = []
    for _ in range(40):
        loss = built(ids).auxiliary_loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(loss.item() / 2)  # two layers
    assert costs[0] > 1.2
    assert min(costs) < 1.1


PAIR = {"encoder": document(mixture())["decoder"], "assembly": "encoder_decoder"}


def test_both_stacks_lose_and_layers_computed_again_lose_once() -> None:
    sides = document(mixture(z_loss=0.1), **PAIR)
    sides["decoder"]["layer"]["order"].append("cross_attention")
    sides["decoder"]["layer"]["branches"]["cross_attention"] = {"name": "cross_attention", "heads": 2}
    sides["encoder"]["layer"]["branches"]["self_attention"]["mask"] = {"causal": False}
    built = pairform.build(sides, seed=0, dtype=torch.float64).train()
    found = []
    for layers in ("none", "all"):
        built.checkpoint_layers(layers)
        built.zero_grad()
        output = built(IDS, labels=IDS)
        assert output.loss is not None
        assert output.auxiliary_loss is not None
        output.loss.backward()
        found.append((output.loss, output.auxiliary_loss, [parameter.grad for parameter in built.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    alone = built.encoder
    assert alone is not None
    ran = alone(StackInputs(IDS, valid=IDS.ne(0)))
    assert 0 < ran.auxiliary_loss < found[0][1]


def test_labels_that_are_ignored_change_no_loss() -> None:
    """They pad a batch's targets: the decoder's tokens there are padding, though no mask says so."""
    sides = document(mixture(balance=1.0, z_loss=0.5, top_k=1), **PAIR)
    sides["decoder"]["layer"]["order"].append("cross_attention")
    sides["decoder"]["layer"]["branches"]["cross_attention"] = {"name": "cross_attention", "heads": 2}
    sides["encoder"]["layer"]["branches"]["self_attention"]["mask"] = {"causal": False}
    built = pairform.build(sides, seed=0, dtype=torch.float64).train()
    found = built(IDS, labels=IDS)
    for more in (1, 9):
        padded = built(IDS, labels=functional.pad(IDS, (0, more), value=-100))
        torch.testing.assert_close(padded.auxiliary_loss, found.auxiliary_loss)
        torch.testing.assert_close(padded.loss, found.loss)
    shorter = IDS.masked_fill(torch.tensor([[False] * 6, [False] * 4 + [True] * 2]), -100)
    masked = built(IDS, labels=shorter, decoder_attention_mask=shorter >= 0)
    torch.testing.assert_close(built(IDS, labels=shorter).auxiliary_loss, masked.auxiliary_loss)


def test_compiled_it_is_one_graph_with_the_same_numbers() -> None:
    built = model(mixture(z_loss=0.1, **SIDES)).train()
    expected = built(IDS, labels=IDS)
    assert expected.loss is not None
    expected.loss.backward()
    gradients = [parameter.grad for parameter in built.parameters()]
    built.zero_grad()
    found = torch.compile(built, backend="aot_eager", fullgraph=True)(IDS, labels=IDS)
    found.loss.backward()
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close([parameter.grad for parameter in built.parameters()], gradients)


def test_the_router_computes_in_float32_under_autocast() -> None:
    built = pairform.build(document(mixture(z_loss=0.1)), seed=0).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = built(IDS, labels=IDS)
    assert output.auxiliary_loss is not None
    assert output.auxiliary_loss.dtype == torch.float32
    assert output.loss is not None
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_inspect_counts_what_a_token_goes_through() -> None:
    spec = pairform.load_spec(document(mixture()))
    found = pairform.inspect(spec, target_length=10, dtype=torch.float32)
    expert, layers = 3 * 8 * 12, 2
    assert found.parameters["total"] == sum(p.numel() for p in pairform.build(spec, seed=0).parameters())
    assert found.parameters["active"] == found.parameters["total"] - layers * 3 * expert
    ids = torch.randint(3, 11, (1, 10))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pairform.build(spec, seed=0, kernel="eager")(ids)
    assert found.flops["total"] == counter.get_total_flops()
    assert "active" not in pairform.inspect(document(EXPERT)).parameters


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"top_k": 6}, "top_k"),
        ({"expert": mixture()}, "expert"),
        ({"experts": 0}, "experts"),
        ({"balance": -1.0}, "balance"),
        ({"shared_post_norm": RMSNORM}, "shared_post_norm"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(pairform.PairformError, match=rf"decoder\.layer\.branches\.feed_forward\.{where}: found"):
        pairform.load_spec(document(mixture(**fields)))


def test_gelu_tanh_without_gradients_is_more_exact_than_torchs() -> None:
    """Many elements have operators of their own in float32; float64 judges. Few and differentiable ones have torch's kernel."""
    hidden = torch.cat([torch.randn(20_000) * 2, torch.tensor([0.0, 1e30, -1e30, float("inf")])])
    exact, torchs = (functional.gelu(each, approximate="tanh") for each in (hidden.double(), hidden))
    torch.testing.assert_close(gelu_tanh(hidden).double(), exact, rtol=4e-6, atol=1e-12)
    assert not torch.allclose(torchs.double(), exact, rtol=4e-6, atol=1e-12)
    assert torch.equal(gelu_tanh(hidden[:9]), functional.gelu(hidden[:9], approximate="tanh"))
    assert torch.equal(gelu_tanh(hidden.requires_grad_()), torchs)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gelu_tanh_in_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    hidden = torch.linspace(-12, 12, 20_000).to(dtype)
    exact = functional.gelu(hidden.double(), approximate="tanh")
    # half a unit in the last place, which float16's subnormal numbers share; 1e-12: the reference's own cancellation
    unit = torch.finfo(dtype).eps
    least = max(0.51 * unit * torch.finfo(dtype).tiny, 1e-12)
    torch.testing.assert_close(gelu_tanh(hidden).double(), exact, rtol=0.51 * unit, atol=least)
