"""SigLIP's tower and Gemma 3's projector beside ours, on random weights copied by name."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma3Config, SiglipVisionConfig, SiglipVisionModel, T5Gemma2EncoderConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector
from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2MultiModalProjector

import pairform
from tests.parity.compare import FLOAT32, error

LAYER = {
    "layer_norm1": "self_attention.pre_norm",
    "self_attn.q_proj": "self_attention.block.q_proj",
    "self_attn.k_proj": "self_attention.block.k_proj",
    "self_attn.v_proj": "self_attention.block.v_proj",
    "self_attn.out_proj": "self_attention.block.o_proj",
    "layer_norm2": "feed_forward.pre_norm",
    "mlp.fc1": "feed_forward.block.up_proj",
    "mlp.fc2": "feed_forward.block.down_proj",
}
OUTSIDE = {
    "embeddings.patch_embedding.weight": "embedding.weight",
    "embeddings.patch_embedding.bias": "embedding.bias",
    "embeddings.position_embedding.weight": "embedding.position",
    "post_layernorm.weight": "norm.weight",
    "post_layernorm.bias": "norm.bias",
}
CASES = range(24)


def sizes(seed: int) -> dict[str, Any]:
    """One tower and projector; among the pictures are some with a single patch, among the pools some that average nothing."""
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 3])
    tokens_side, pool, patch = rng.choice([1, 2, 3]), rng.choice([1, 2, 4]), rng.choice([1, 2, 5, 14])
    return {
        "width": heads * rng.choice([4, 6, 24]),
        "heads": heads,
        "depth": rng.randint(1, 4),
        "hidden": rng.choice([8, 20, 43]),
        "patch_size": patch,
        "image_size": tokens_side * pool * patch,
        "tokens": tokens_side**2,
        "channels": rng.choice([1, 3, 3]),
        "eps": rng.choice([1e-6, 1e-2]),
        "text_width": rng.choice([8, 24]),
        "activation": rng.choice(["gelu_tanh", "gelu_tanh", "gelu"]),
    }


def document(size: dict[str, Any]) -> dict[str, Any]:
    """A small encoder that reads pictures with such a tower."""
    attention = {"name": "self_attention", "heads": size["heads"], "bias": True}
    mlp = {"name": "mlp", "hidden": size["hidden"], "bias": True, "activation": size["activation"]}
    tower = {
        "width": size["width"],
        "depth": size["depth"],
        "embedding": {"name": "patches", **{key: size[key] for key in ("image_size", "patch_size", "channels")}},
        "layer": {
            "norm": {"name": "layernorm", "eps": size["eps"]},
            "placement": "pre",
            "order": ["self_attention", "feed_forward"],
            "branches": {"self_attention": attention, "feed_forward": mlp},
        },
    }
    norm = {"name": "rmsnorm", "eps": size["eps"], "unit_offset": True}
    branches = {"self_attention": {"name": "self_attention", "heads": 1}, "feed_forward": {"name": "mlp", "hidden": 4}}
    encoder = {
        "width": size["text_width"],
        "depth": 1,
        "embedding": {"name": "token"},
        "layer": {"norm": norm, "placement": "pre", "order": list(branches), "branches": branches},
        "vision": {
            "tower": tower,
            "projector": {"name": "average_pool", "tokens": size["tokens"], "norm": norm},
            "image_token": 3,
        },
    }
    return {"assembly": "encoder_only", "vocabulary": 8, "encoder": encoder, "head": {"name": "none"}}


def theirs_and_config(size: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    config = {
        "hidden_size": size["width"],
        "num_hidden_layers": size["depth"],
        "num_attention_heads": size["heads"],
        "intermediate_size": size["hidden"],
        "num_channels": size["channels"],
        "image_size": size["image_size"],
        "patch_size": size["patch_size"],
        "layer_norm_eps": size["eps"],
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(size["activation"], size["activation"]),
        "vision_use_head": False,
    }
    return SiglipVisionModel(SiglipVisionConfig(**config)).eval(), config


def our_name(name: str) -> str:
    """What a parameter of SigLIP's is called in ours."""
    name = name.removeprefix("vision_model.")
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"layers.{layer}.{LAYER[module]}.{kind}"


@torch.no_grad()
def spread(module: nn.Module) -> nn.Module:
    """Every weight, bias, norm and position far from where it starts."""
    for name, parameter in module.named_parameters():
        parameter.normal_(std=1.0)
        if "norm" in name and name.endswith("weight"):
            parameter.add_(1.0)
    return module


def copied(theirs: nn.Module, ours: nn.Module) -> nn.Module:
    ours.load_state_dict({our_name(name): parameter for name, parameter in theirs.named_parameters()})
    return ours


def vision(size: dict[str, Any], seed: int) -> Any:
    return pairform.build(document(size), seed=seed).get_submodule("encoder.vision")


def pictures(size: dict[str, Any]) -> Tensor:
    return torch.randn(3, size["channels"], size["image_size"], size["image_size"])


@pytest.mark.parametrize("seed", CASES)
def test_the_tower_is_siglip(seed: int) -> None:
    size = sizes(seed)
    theirs = spread(theirs_and_config(size)[0])
    pixels = pictures(size)
    ours = copied(theirs, vision(size, seed).tower)
    expected = theirs(pixels, output_hidden_states=True)
    found = ours(pixels, hidden_states=True)
    assert error(found.hidden, expected.last_hidden_state) < FLOAT32
    for layer in range(size["depth"]):
        assert error(found.hidden_states[layer], expected.hidden_states[layer]) < FLOAT32


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize(
    ("projector", "config"),
    [(Gemma3MultiModalProjector, Gemma3Config), (T5Gemma2MultiModalProjector, T5Gemma2EncoderConfig)],
    ids=["gemma3", "t5gemma2"],
)
def test_the_projector_is_gemmas(seed: int, projector: Any, config: Any) -> None:
    size = sizes(seed)
    vision_config = theirs_and_config(size)[1]
    text = {"hidden_size": size["text_width"]}
    theirs = spread(projector(config(vision_config=vision_config, text_config=text, mm_tokens_per_image=size["tokens"])))
    ours = vision(size, seed).projector
    known = dict(theirs.named_parameters())
    ours.load_state_dict({"weight": known["mm_input_projection_weight"], "norm.weight": known["mm_soft_emb_norm.weight"]})
    seen = torch.randn(3, (size["image_size"] // size["patch_size"]) ** 2, size["width"])
    assert error(ours(seen), theirs(seen)) < FLOAT32


def test_the_towers_gradients_are_siglips() -> None:
    size = sizes(1)
    theirs = spread(theirs_and_config(size)[0])
    ours = copied(theirs, vision(size, 0).tower).requires_grad_()
    pixels = pictures(size)
    outputs = ours(pixels).hidden, theirs(pixels).last_hidden_state
    ahead = torch.randn_like(outputs[0])
    for output in outputs:
        (output * ahead).sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        found, expected = gradients[our_name(name)], parameter.grad
        assert found is not None
        if not name.endswith("k_proj.bias"):  # its gradient is zero but for rounding: softmax sees no constant
            assert expected is not None
            assert error(found, expected) < FLOAT32
