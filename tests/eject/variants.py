"""The specs that the tests write: a preset of each published family, and variants of them."""

from typing import Any

PRESETS = (
    "t5gemma-b-b",
    "t5gemma-9b-2b",
    "t5gemma2-270m-270m",
    "gemma-2-2b",
    "gemma-3-1b",
    "gemma-3-4b",
    "llama-3.2-1b",
    "mistral-7b",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "t5-small",
    "t5-v1.1-base",
    "mt5-small",
)
LAYER_NORM = {"name": "layernorm", "unit_offset": None, "affine": None}
MERGED = {"self_attention": {"name": "merged_attention"}, "cross_attention": None}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "narrow_decoder": (
        "t5gemma-b-b",
        {"decoder": {"width": 48, "layer": {"branches": {"self_attention": {"kv_heads": 1}}}}},
    ),
    "merged_separate_keys": (
        "t5gemma-b-b",
        {"decoder": {"width": 48, "layer": {"branches": MERGED}}, "bridge": {"name": "separate_keys"}},
    ),
    "linear_bridge": (
        "t5gemma2-270m-270m",
        {
            "encoder": {"width": 48},
            "tie_embeddings": False,
            "head": {"tie": None},
            "bridge": {"name": "linear", "bias": True},
        },
    ),
    "post_norm": (
        "qwen2.5-0.5b",
        {"decoder": {"layer": {"placement": "post", "norm": {"name": "layernorm", "unit_offset": None, "affine": None}}}},
    ),
    "norm_across_heads": (
        "qwen3-0.6b",
        {"decoder": {"layer": {"placement": "inner_post", "branches": {"self_attention": {"qk_norm_span": "width"}}}}},
    ),
    "part_of_the_channels": (
        "llama-3.2-1b",
        {
            "decoder": {
                "layer": {
                    "branches": {
                        "self_attention": {"position": {"fraction": 0.5}, "bias": True},
                        "feed_forward": {"name": "mlp", "activation": "relu_squared", "bias": True},
                    }
                },
                # a layer without positions, and one with a wider feed-forward block
                "overrides": [
                    {"layers": [1], "patch": {"branches": {"self_attention": {"position": None}}}},
                    {"layers": [-1], "patch": {"branches": {"feed_forward": {"hidden": 64}}}},
                ],
            }
        },
    ),
    "learned_positions": (
        "qwen2.5-0.5b",
        {
            "decoder": {
                "position": {"name": "learned", "length": 64, "offset": 2},
                "embedding_norm": {"name": "layernorm"},
                "embedding": {"scale": 3.0},
                "layer": {
                    "branches": {"self_attention": {"position": None}},
                    "residual": {"name": "scaled", "scale": 0.7},
                },
            },
            "head": {"scale": 0.5, "bias": "learned"},
        },
    ),
    "yarn": (
        "mistral-7b",
        {
            "decoder": {
                "layer": {
                    "branches": {
                        "self_attention": {
                            "position": {
                                "scaling": {"name": "yarn", "factor": 4.0, "original_length": 64, "attention": 1.0},
                            },
                            "value_norm": {"name": "rmsnorm", "affine": False},
                        }
                    }
                }
            }
        },
    ),
}
