"""GPT-2 (Radford et al. 2019) in transformers' files."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pairform.assemblies.families.config import (
    EARLIER_ACTIVATION_NAMES,
    EndTokens,
    HeadConfig,
    Token,
    activation_named,
    checked,
)
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.families.gemma.gemma2 import causal
from pairform.assemblies.families.gpt2.names import BASE, NAMES, SEQUENCE, TOKENS
from pairform.assemblies.families.heads import architectures, decoder_only, head_config
from pairform.assemblies.families.tokens import tokens_config
from pairform.assemblies.specs.model import ModelSpec, StackSpec
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability, Problem, SpecError

ARCHITECTURES = architectures("GPT2", lm="LMHeadModel")
REFUSED = {
    "scale_attn_by_inverse_layer_idx": "the scores of a layer are not divided by its number",
    "reorder_and_upcast_attn": "scores are computed in the dtype of the model",
    "add_cross_attention": "a decoder that reads an encoder belongs to an EncoderDecoderModel",
}
"""Fields that must be false, and why."""


class GPT2Config(HeadConfig):
    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    vocab_size: PositiveInt = 50_257
    n_positions: PositiveInt = 1024
    n_embd: PositiveInt = 768
    n_layer: Depth = 12
    n_head: PositiveInt = 12
    n_inner: PositiveInt | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: Probability = 0.1
    embd_pdrop: Probability = 0.1
    attn_pdrop: Probability = 0.1
    layer_norm_epsilon: PositiveFloat = 1e-5
    initializer_range: PositiveFloat = 0.02
    scale_attn_weights: bool = True
    pad_token_id: Token = None
    bos_token_id: Token = 50_256
    eos_token_id: EndTokens = 50_256
    decoder_start_token_id: Token = None
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    add_cross_attention: bool = False
    is_causal: bool = True


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(GPT2Config, config)
    for field, why in REFUSED.items():
        if config[field]:
            raise SpecError(Problem(field, "true", f"false: {why}"))
    return decoder_only(config, ARCHITECTURES, stack_document(config), softcap=None)


def stack_document(config: Mapping[str, Any]) -> dict[str, Any]:
    """The document of our stack for a checked configuration."""
    attention = {
        "name": "self_attention",
        "heads": config["n_head"],
        "bias": True,
        "dropout": config["attn_pdrop"],
        "mask": {"causal": config["is_causal"]},
    }
    feed_forward = {
        "name": "mlp",
        "activation": activation_named(config["activation_function"], "activation_function"),
        "hidden": 4 * config["n_embd"] if config["n_inner"] is None else config["n_inner"],
        "bias": True,
    }
    return {
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "embedding": {"name": "token"},
        "position": {"name": "learned", "length": config["n_positions"]},
        "layer": {
            "norm": {"name": "layernorm", "eps": config["layer_norm_epsilon"]},
            "placement": "pre",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {
                "self_attention": attention | ({} if config["scale_attn_weights"] else {"scale": 1.0}),
                "feed_forward": feed_forward,
            },
            "dropout": config["resid_pdrop"],
        },
        "dropout": config["embd_pdrop"],
        "final_dropout": 0.0,
        "max_length": config["n_positions"],
    }


def stack_config(stack: StackSpec) -> dict[str, Any]:
    """The inverse. What it cannot express shows when the result is read back."""
    layer = stack.layers[0]
    attention, feed_forward = branch(layer, "self_attention"), branch(layer, "feed_forward")
    heads = attention.get("heads", 1)
    act = feed_forward.get("activation", "gelu_tanh")
    scale = attention.get("scale")
    return {
        "activation_function": EARLIER_ACTIVATION_NAMES.get(act, act),
        "attn_pdrop": attention.get("dropout", 0.0),
        "embd_pdrop": stack.dropout,
        "layer_norm_epsilon": layer.norm.document().get("eps", 1e-5),
        "n_embd": stack.width,
        "n_head": heads,
        "n_inner": feed_forward.get("hidden", 1),
        "n_layer": stack.depth,
        "n_positions": 1 if stack.position is None else stack.position.document().get("length", 1),
        "resid_pdrop": layer.dropout,
        "scale_attn_weights": scale in (None, (stack.width // heads) ** -0.5),
    }


def to_config(spec: ModelSpec) -> dict[str, Any]:
    config = stack_config(spec.last) | tokens_config(spec) | head_config(spec, ARCHITECTURES)
    if spec.head.name == "token_classification":
        config["classifier_dropout"] = HeadSpec.of(spec.head).dropout
    if not causal(spec):
        config["is_causal"] = False
    return config | {"vocab_size": spec.vocabulary}


def writes(spec: ModelSpec) -> bool:
    """For decoders with a table of positions and layer norms."""
    stack = spec.last
    learned = stack.position is not None and stack.position.name == "learned"
    return spec.assembly == "decoder_only" and learned and stack.layers[0].norm.name == "layernorm"


def written(spec: ModelSpec) -> NameTable:
    return TOKENS if spec.head.name == "token_classification" else SEQUENCE


FAMILIES = (Family("gpt2", NAMES, to_document, to_config, writes, base_prefix=BASE, written=written),)
