"""Blocks: each against torch's own module or its formula, and each slot swapped once in a whole model."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pairform
from pairform.blocks.context import Context
from pairform.blocks.feedforward import FeedForward, GatedFeedForward
from pairform.blocks.norms import LayerNorm, RMSNorm
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.registry import Sizes

TINY: dict[str, Any] = {
    "extends": "t5gemma-s-s",
    "vocabulary": 48,
    "encoder": {
        "width": 32,
        "depth": 2,
        "layer": {"branches": {"self_attention": {"heads": 4, "kv_heads": 4, "head_dim": 8}, "feed_forward": {"hidden": 40}}},
        "cycle": [{"branches": {"self_attention": {"mask": {"window": [3, 3]}}}}, {}],
    },
    "decoder": {
        "width": 24,
        "depth": 2,
        "layer": {
            "branches": {
                "self_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8},
                "cross_attention": {"heads": 4, "kv_heads": 2, "head_dim": 8},
                "feed_forward": {"hidden": 40},
            }
        },
        "cycle": [{"branches": {"self_attention": {"mask": {"window": [3, 3]}}}}, {}],
    },
    "initializer_range": 0.5,
}


def positions(length: int) -> Context:
    return Context(torch.arange(length)[None])


def filled(module: nn.Module) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def test_rmsnorm_is_its_formula() -> None:
    hidden = torch.randn(2, 3, 8, dtype=torch.float64) * 5
    for unit_offset in (False, True):
        norm = filled(RMSNorm(RMSNorm.Spec(eps=1e-5, unit_offset=unit_offset), Sizes(8)))
        scale = norm.weight.double() + unit_offset
        expected = hidden / (hidden.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * scale
        torch.testing.assert_close(norm(hidden.float()), expected.float())


@pytest.mark.parametrize("bias", [True, False])
def test_layernorm_is_torchs(bias: bool) -> None:
    ours = filled(LayerNorm(LayerNorm.Spec(eps=1e-4, bias=bias), Sizes(8)))
    theirs = nn.LayerNorm(8, eps=1e-4, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(2, 3, 8) * 4 + 1
    torch.testing.assert_close(ours(hidden), theirs(hidden))


def test_norms_compute_in_float32_and_keep_the_dtype() -> None:
    hidden = torch.randn(2, 8, dtype=torch.bfloat16) * 100
    for norm in (RMSNorm(RMSNorm.Spec(), Sizes(8)), LayerNorm(LayerNorm.Spec(), Sizes(8))):
        exact = filled(norm)(hidden.float())
        assert torch.equal(norm(hidden), exact.to(torch.bfloat16))


def test_rope_scores_depend_on_distance_alone() -> None:
    rope = RotaryPosition(RotaryPosition.Spec(), Sizes(8))
    query, key = torch.randn(1, 1, 1, 8).expand(1, 1, 6, 8), torch.randn(1, 1, 1, 8).expand(1, 1, 6, 8)
    scores = (rope(query, positions(6)) @ rope(key, positions(6)).transpose(-1, -2))[0, 0]
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_linear_scaling_divides_positions() -> None:
    heads = torch.randn(1, 2, 4, 8)
    scaled = RotaryPosition(RotaryPosition.Spec.read({"scaling": {"name": "linear", "factor": 4.0}}), Sizes(8))
    plain = RotaryPosition(RotaryPosition.Spec(), Sizes(8))
    quarter = Context(torch.arange(4)[None] / 4)
    torch.testing.assert_close(scaled(heads, positions(4)), plain(heads, quarter))


@pytest.mark.parametrize(("activation", "reference"), [("silu", functional.silu), ("gelu", functional.gelu)])
def test_gated_feed_forward_is_its_formula(activation: Any, reference: Any) -> None:
    block = filled(GatedFeedForward(GatedFeedForward.Spec(hidden=5, activation=activation), Sizes(4)))
    hidden = torch.randn(2, 3, 4)
    gate, up, down = (getattr(block, f"{name}_proj").weight for name in ("gate", "up", "down"))
    torch.testing.assert_close(block(hidden, positions(3)), (reference(hidden @ gate.T) * (hidden @ up.T)) @ down.T)


def test_plain_feed_forward_is_two_linear_layers() -> None:
    block = filled(FeedForward(FeedForward.Spec(hidden=5, activation="relu", bias=True), Sizes(4)))
    hidden = torch.randn(2, 3, 4)
    torch.testing.assert_close(block(hidden, positions(3)), nn.Sequential(block.up_proj, nn.ReLU(), block.down_proj)(hidden))


SWAPS: dict[str, dict[str, Any]] = {
    "norm": {"decoder": {"layer": {"norm": {"name": "layernorm"}}}},
    "no norm": {"encoder": {"final_norm": {"name": "none"}}},
    "placement pre": {"decoder": {"layer": {"placement": "pre"}}},
    "placement post": {"decoder": {"layer": {"placement": "post"}}},
    "placement inner_post": {"decoder": {"layer": {"placement": "inner_post"}}},
    "one branch without a norm": {
        "encoder": {"overrides": [{"layers": [0], "patch": {"norms": {"self_attention": {"name": "none"}}}}]}
    },
    "position": {"decoder": {"layer": {"branches": {"self_attention": {"position": {"name": "none"}}}}}},
    "scaled position": {
        "encoder": {"layer": {"branches": {"self_attention": {"position": {"scaling": {"name": "linear", "factor": 2.0}}}}}}
    },
    "qk_norm": {"decoder": {"layer": {"branches": {"self_attention": {"qk_norm": {"name": "rmsnorm"}}}}}},
    "qk_norm over all heads": {
        "decoder": {"layer": {"branches": {"self_attention": {"qk_norm": {"name": "rmsnorm"}, "qk_norm_span": "width"}}}}
    },
    "bias and MQA": {"decoder": {"layer": {"branches": {"cross_attention": {"bias": True, "kv_heads": 1}}}}},
    "no softcap": {
        "decoder": {"layer": {"branches": {"self_attention": {"softcap": None}, "cross_attention": {"softcap": None}}}}
    },
    "feed-forward": {"decoder": {"layer": {"branches": {"feed_forward": {"name": "mlp", "activation": "relu"}}}}},
    "activation": {"encoder": {"layer": {"branches": {"feed_forward": {"activation": "silu"}}}}},
    "unscaled embedding": {"encoder": {"embedding": {"scale": 2.5}}},
    "untied head": {"head": {"tie": None, "softcap": None}},
    "order": {"decoder": {"layer": {"order": ["feed_forward", "cross_attention", "self_attention"]}}},
    "merged attention": {
        "encoder": {"width": 24},
        "decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None}}},
    },
    "merged attention behind a bridge, in one layer": {
        "bridge": {"name": "linear"},
        "decoder": {
            "overrides": [
                {
                    "layers": [-1],
                    "patch": {"branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None}},
                }
            ]
        },
    },
    "separate source keys beside cross-attention": {
        "bridge": {"name": "separate_keys"},
        "decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}}}},
    },
    "tied embeddings": {"tie_embeddings": True, "encoder": {"width": 24}, "head": {"tie": "encoder"}},
    "cross-attention in one layer": {
        "decoder": {"overrides": [{"layers": [0], "patch": {"branches": {"cross_attention": None}}}]}
    },
}


@pytest.mark.parametrize("what", SWAPS)
def test_each_slot_can_be_swapped_and_the_model_trains_and_decodes(what: str) -> None:
    spec = pairform.patch(pairform.load_spec(TINY), SWAPS[what])
    assert pairform.diff(pairform.load_spec(TINY), spec)
    model = pairform.build(spec, seed=0)
    torch.manual_seed(0)
    ids = torch.randint(3, 48, (2, 9))
    ids[0, 6:] = 0
    changed = pairform.build(TINY, seed=0)(ids, labels=ids[:, :7])
    output = model(ids, labels=ids[:, :7])
    assert not torch.equal(logits_of(output), logits_of(changed))
    assert output.loss is not None
    output.loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    cached = model.generate(ids, max_new_tokens=12, eos_token_id=())
    assert torch.equal(cached, model.generate(ids, max_new_tokens=12, eos_token_id=(), use_cache=False))


def logits_of(output: pairform.ModelOutput) -> Tensor:
    assert output.logits is not None
    return output.logits


def test_dropout_is_active_in_training_alone() -> None:
    drops = {"dropout": 0.5, "layer": {"dropout": 0.5, "branches": {"self_attention": {"dropout": 0.5}}}}
    model = pairform.build(pairform.load_spec(TINY, {"decoder": drops}), seed=0)
    ids = torch.randint(3, 48, (1, 8))
    assert torch.equal(logits_of(model(ids, labels=ids)), logits_of(model(ids, labels=ids)))
    model.train()
    assert not torch.equal(logits_of(model(ids, labels=ids)), logits_of(model(ids, labels=ids)))
