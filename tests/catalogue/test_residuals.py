"""Residuals, parallel branches and dropped paths, against the formulas in float64 and transformers' GPT-NeoX."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

import pairform

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 8, 2]])
ATTENTION = {"name": "self_attention", "heads": 2, "mask": {"causal": True}, "position": {"name": "rope"}}
BRANCHES = {"self_attention": ATTENTION, "feed_forward": {"name": "mlp", "hidden": 12, "activation": "gelu"}}


def document(**layer: Any) -> dict[str, Any]:
    layers = {"norm": {"name": "rmsnorm"}, "order": list(BRANCHES), "branches": BRANCHES, **layer}
    stack = {"width": 8, "depth": 2, "embedding": {"name": "token"}, "layer": layers}
    return {"assembly": "decoder_only", "vocabulary": 11, "decoder": stack, "head": {"name": "lm"}}


def filled(document: dict[str, Any]) -> pairform.Model:
    model = pairform.build(document, seed=0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def scaled(hidden: Tensor, added: Tensor, residual: nn.Module) -> Tensor:
    return hidden + residual.get_parameter("weight") * added


def gated(hidden: Tensor, added: Tensor, residual: nn.Module) -> Tensor:
    logits = hidden @ residual.get_parameter("weight").T + residual.get_parameter("bias")
    gate = 1 / (1 + (-logits).exp())
    return (1 - gate) * hidden + gate * added


FORMULAS: dict[str, tuple[dict[str, Any], Callable[..., Tensor]]] = {
    "add": ({"name": "add"}, lambda hidden, added, residual: hidden + added),
    "fixed": ({"name": "scaled", "scale": 0.3}, lambda hidden, added, residual: hidden + 0.3 * added),
    "scalar": ({"name": "scaled", "learned": "scalar", "scale": 0.0}, scaled),
    "vector": ({"name": "scaled", "learned": "vector", "scale": 1e-4}, scaled),
    "gated": ({"name": "gated"}, gated),
}


@pytest.mark.parametrize("what", FORMULAS)
@pytest.mark.parametrize("placement", ["pre", "post", "inner_post", "sandwich"])
def test_a_branch_joins_by_the_formula(what: str, placement: str) -> None:
    spec, formula = FORMULAS[what]
    model = filled(document(residual=spec, placement=placement))
    decoder: Any = model.decoder
    branch = decoder.layers[0].feed_forward
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    read = branch.pre_norm(hidden) if placement in ("pre", "sandwich") else hidden
    added = functional.gelu(read @ branch.block.up_proj.weight.T) @ branch.block.down_proj.weight.T
    joined = formula(hidden, branch.post_norm(added) if placement in ("inner_post", "sandwich") else added, branch.residual)
    torch.testing.assert_close(branch(hidden, None), branch.post_norm(joined) if placement == "post" else joined)
    model(IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    cached = model.generate(IDS, max_new_tokens=4, eos_token_id=())
    assert torch.equal(cached, model.generate(IDS, max_new_tokens=4, eos_token_id=(), use_cache=False))


def test_fresh_residuals_begin_where_the_spec_says() -> None:
    for spec, name, value in (
        ({"name": "scaled", "learned": "scalar", "scale": 0.0}, "weight", torch.zeros(1)),
        ({"name": "scaled", "learned": "vector", "scale": 1e-4}, "weight", torch.full((8,), 1e-4)),
        ({"name": "gated", "bias": -3.0}, "bias", torch.full((8,), -3.0)),
    ):
        model = pairform.build(document(residual=spec), seed=0)
        assert model.get_parameter(f"decoder.layers.0.feed_forward.residual.{name}").equal(value)


def test_a_residual_of_zero_leaves_the_embeddings() -> None:
    model = filled(document(residual={"name": "scaled", "scale": 0.0}))
    states = model(IDS, output_hidden_states=True).hidden_states
    assert states is not None
    assert torch.equal(states[0], states[1])


PAIR: dict[str, Any] = {
    "extends": "t5gemma-s-s",
    "vocabulary": 16,
    "encoder": {"width": 64, "depth": 3, "layer": {"placement": "post", "residual": {"name": "deepnorm"}}},
    "decoder": {"width": 64, "depth": 2, "layer": {"placement": "post", "residual": {"name": "deepnorm"}}},
}
N, M = 3, 2
ALONE = document(placement="post", residual={"name": "deepnorm"})
DEPTHS: dict[str, tuple[dict[str, Any], str, float, float]] = {
    "an encoder that is read": (PAIR, "encoder", 0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (-1 / 16)),
    "a decoder that reads": (PAIR, "decoder", (3 * M) ** (1 / 4), (12 * M) ** (-1 / 4)),
    "a decoder alone": (ALONE, "decoder", (2 * M) ** (1 / 4), (8 * M) ** (-1 / 4)),
}


@pytest.mark.parametrize("what", DEPTHS)
def test_deepnorm_follows_the_papers_figure_2(what: str) -> None:
    spec, stack, alpha, beta = DEPTHS[what]
    model = pairform.build(spec, seed=0)
    plain = pairform.build(pairform.patch(model.spec, {stack: {"layer": {"residual": {"name": "add"}}}}), seed=0)
    for name, parameter in plain.named_parameters():
        changed = name.startswith(f"{stack}.layers.") and "_proj." in name and ".q_proj." not in name and ".k_proj." not in name
        torch.testing.assert_close(model.get_parameter(name), parameter * beta if changed else parameter)
    branch: Any = model.get_submodule(f"{stack}.layers.0.feed_forward")
    hidden = torch.randn(1, 2, branch.block.up_proj.in_features)
    torch.testing.assert_close(branch(hidden, None), branch.post_norm(alpha * hidden + branch.block(hidden, None)))


@pytest.mark.parametrize(
    ("attention", "scored"),
    [
        ({"name": "merged_attention", "heads": 2}, {"q_proj", "k_proj", "source_k_proj"}),
        (
            {"name": "latent_attention", "heads": 2, "latent": 4, "rope_dim": 2, "query_latent": 6},
            {"q_down_proj", "q_proj", "k_proj"},
        ),
        ({"name": "retention", "heads": 2, "mask": {"causal": True}}, {"q_proj", "k_proj"}),
    ],
)
def test_what_makes_scores_is_not_smaller_by_beta(attention: dict[str, Any], scored: set[str]) -> None:
    encoder = document(branches=BRANCHES | {"self_attention": ATTENTION | {"mask": {"causal": False}}})["decoder"]
    spec = document(placement="post", residual={"name": "deepnorm"}, branches=BRANCHES | {"self_attention": attention})
    spec |= {"assembly": "encoder_decoder", "encoder": encoder, "bridge": {"name": "separate_keys"}}
    if attention["name"] != "merged_attention":
        spec["bridge"] = {"name": "none"}
    model = pairform.build(spec, seed=0)
    plain = pairform.build(pairform.patch(model.spec, {"decoder": {"layer": {"residual": {"name": "add"}}}}), seed=0)
    block: Any = model.get_submodule("decoder.layers.1.self_attention")
    for name, parameter in plain.get_submodule("decoder.layers.1.self_attention.block").named_parameters():
        module, _, _ = name.partition(".")
        changed = 1.0 if module in scored or "norm" in module else block.residual.beta
        torch.testing.assert_close(block.block.get_parameter(name), parameter * changed)


def test_deepnorm_takes_given_numbers_and_needs_post_norm() -> None:
    branch: Any = filled(document(placement="post", residual={"name": "deepnorm", "alpha": 3.0})).get_submodule(
        "decoder.layers.0.feed_forward"
    )
    hidden = torch.randn(1, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(branch(hidden, None), branch.post_norm(3 * hidden + branch.block(hidden, None)))
    with pytest.raises(pairform.PairformError, match=r"decoder\.layer\.placement: found 'pre' with deepnorm, expected 'post'"):
        pairform.load_spec(document(residual={"name": "deepnorm"}))


def test_parallel_branches_are_gpt_neox() -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        attention_bias=False,
        initializer_range=1.0,
    )
    theirs: Any = transformers.GPTNeoXForCausalLM(config).double().eval()
    norm = {"name": "layernorm", "eps": config.layer_norm_eps}
    branches = {**BRANCHES, "feed_forward": {**BRANCHES["feed_forward"], "bias": True}}
    ours = filled(document(norm=norm, branches=branches, order=[["self_attention", "feed_forward"]]))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    sources = {"embedding": theirs.gpt_neox.embed_in, "norm": theirs.gpt_neox.final_layer_norm}
    for index, layer in enumerate(theirs.gpt_neox.layers):
        parts = {
            "self_attention.pre_norm": layer.input_layernorm,
            "feed_forward.pre_norm": layer.post_attention_layernorm,
            "feed_forward.block.up_proj": layer.mlp.dense_h_to_4h,
            "feed_forward.block.down_proj": layer.mlp.dense_4h_to_h,
            "self_attention.block.o_proj": layer.attention.dense,
        }
        for number, name in enumerate("qkv"):  # theirs are one matrix, sorted by heads
            projection = nn.Linear(8, 8, bias=False, dtype=torch.float64)
            weight = layer.attention.query_key_value.weight.unflatten(0, (2, 3, 4))[:, number].flatten(0, 1)
            projection.load_state_dict({"weight": weight})
            parts[f"self_attention.block.{name}_proj"] = projection
        sources |= {f"layers.{index}.{name}": module for name, module in parts.items()}
    for name, module in sources.items():
        ours.get_submodule(f"decoder.{name}").load_state_dict(module.state_dict())
    ours.head.load_state_dict(theirs.lm_head.state_dict())
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits)
    cached = ours.generate(IDS, max_new_tokens=4, eos_token_id=())
    assert torch.equal(cached, ours.generate(IDS, max_new_tokens=4, eos_token_id=(), use_cache=False))


def test_turns_can_be_patched_and_are_checked() -> None:
    spec = pairform.load_spec(document())
    parallel = pairform.patch(spec, {"decoder": {"layer": {"order": [["self_attention", "feed_forward"]]}}})
    assert pairform.diff(spec, parallel)
    assert pairform.load_spec(parallel.document()) == parallel
    for order in (["self_attention", ["self_attention", "feed_forward"]], [["self_attention"]], [[], *BRANCHES]):
        with pytest.raises(pairform.PairformError, match=r"decoder\.layer\.(order|branches)"):
            pairform.load_spec(document(order=order))
    with pytest.raises(pairform.PairformError, match="parallel branches under the placement 'post'"):
        pairform.load_spec(document(placement="post", order=[list(BRANCHES)]))


@pytest.mark.parametrize("growth", ["constant", "linear"])
def test_dropped_paths(growth: str) -> None:
    model = filled(document(drop_path={"rate": 0.5, "growth": growth}, order=["feed_forward"], branches=feed_forward()))
    decoder: Any = model.decoder
    hidden = torch.randn(4000, 1, 8, dtype=torch.float64)
    for layer, rate in zip(decoder.layers, (0.5, 0.5) if growth == "constant" else (0.25, 0.5), strict=True):
        branch = layer.feed_forward
        added = branch.eval()(hidden, None) - hidden
        kept = branch.train()(hidden, None) - hidden
        dropped = kept.eq(0).all(-1).all(-1)
        assert abs(dropped.double().mean() - rate) < 0.04  # five standard deviations
        torch.testing.assert_close(kept[~dropped], added[~dropped] / (1 - rate))


def feed_forward() -> dict[str, Any]:
    return {"feed_forward": BRANCHES["feed_forward"]}


def test_dropped_paths_are_the_same_when_computed_again() -> None:
    gradients = []
    for layers in ("none", "all"):
        model = filled(document(drop_path={"rate": 0.5})).train()
        model.checkpoint_layers(layers)
        torch.manual_seed(1)
        model(IDS, labels=IDS).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        torch.manual_seed(0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
