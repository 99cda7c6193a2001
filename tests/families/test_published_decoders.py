"""Configurations as they are published give models of the published sizes, and are written back."""

from math import prod
from typing import Any

import pytest

from pairform.assemblies.families import FAMILIES, family_of_spec
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.canonical import differences

PHI3: dict[str, Any] = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10_000.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": (
        {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_ctx": 1024,
            "n_positions": 1024,
            "vocab_size": 50_257,
        },
        124_439_808,
    ),
    "Phi-3-mini-4k": (PHI3 | {"num_attention_heads": 32, "rope_scaling": None, "sliding_window": 2047}, 3_821_079_552),
    "Phi-4-mini": (
        PHI3
        | {
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "vocab_size": 200_064,
            "pad_token_id": 199_999,
            "bos_token_id": 199_999,
            "eos_token_id": 199_999,
            "max_position_embeddings": 131_072,
            "sliding_window": 262_144,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0 + pair for pair in range(48)]},
            "tie_word_embeddings": True,
        },
        3_836_021_760,
    ),
    "Mixtral-8x7B": (
        {
            "model_type": "mixtral",
            "architectures": ["MixtralForCausalLM"],
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32_768,
            "rope_theta": 1e6,
            "sliding_window": None,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.02,
        },
        46_702_792_704,
    ),
}
"""config.json as far as it matters, and the number of parameters."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_has_the_published_size(name: str) -> None:
    config, total = PUBLISHED[name]
    spec = FAMILIES[config["model_type"]].spec(config)
    assert sum(prod(parameter.shape) for parameter in parameters_of(spec).values()) == total
    family, written = family_of_spec(spec)
    assert differences(family.spec(written), spec) == {}
