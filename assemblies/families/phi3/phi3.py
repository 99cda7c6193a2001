"""Phi-3 (arXiv 2404.14219) in transformers' files: Llama with fused projections, LongRoPE and partial rotary positions.

A spec that Llama or Mistral can express too is written as one of them, since more programs read those.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import EndTokens, Token, checked
from pairform.assemblies.families.family import Family, Fused, NameTable
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.families.heads import architectures, decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.families.rope import LENGTH
from pairform.assemblies.families.rows import HEADS, PRE_NORMS, stack_rows
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
from pairform.registry import PositiveInt, Probability, Problem, SpecError, shorten

LAYER, OWN = "model.layers.{layer}.", "decoder.layers.{layer}."
FUSED = (
    Fused(
        LAYER + "self_attn.qkv_proj.weight", tuple(f"{OWN}self_attention.block.{side}_proj.weight" for side in ("q", "k", "v"))
    ),
    Fused(LAYER + "mlp.gate_up_proj.weight", tuple(f"{OWN}feed_forward.block.{side}_proj.weight" for side in ("gate", "up"))),
)
NAMES = NameTable((*FUSED, *stack_rows("model.", "decoder", PRE_NORMS), *HEADS), unread=(LAYER + "self_attn.rotary_emb.",))
OLD_SCALINGS = ("su", "yarn")
"""Names of LongRoPE in older files."""


class Phi3Config(LlamaConfig):
    vocab_size: PositiveInt = 32_064
    hidden_size: PositiveInt = 3072
    intermediate_size: PositiveInt = 8192
    max_position_embeddings: PositiveInt = 4096
    original_max_position_embeddings: PositiveInt = 4096
    rms_norm_eps: float = 1e-5
    pad_token_id: Token = 32_000
    eos_token_id: EndTokens = 32_000
    sliding_window: PositiveInt | None = None
    resid_pdrop: Probability = 0.0


KIND = llama.Kind("phi3", "Phi3", Phi3Config, windows="all", attention_bias=False, partial_rotary=True)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(Phi3Config, config)
    field = "rope_scaling" if config["rope_scaling"] else "rope_parameters"
    parameters = dict(config[field] or {})
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    kind = "longrope" if kind in OLD_SCALINGS else kind
    if kind not in ("default", "longrope"):
        raise SpecError(Problem(f"{field}.rope_type", shorten(kind), "default or longrope, as in transformers' phi3"))
    width = config["hidden_size"] // config["num_attention_heads"]
    if kind == "longrope" and config["head_dim"] not in (None, width):
        found = f"{config['head_dim']} with longrope"
        raise SpecError(Problem("head_dim", found, f"{width}, hidden_size / num_attention_heads, as in transformers' phi3"))
    stack = llama.stack_document(KIND, config | {field: parameters | {"rope_type": kind}})
    stack["layer"]["dropout"] = config["resid_pdrop"]
    return decoder_only(config, architectures("Phi3"), stack, softcap=None)


def to_config(spec: ModelSpec) -> dict[str, Any]:
    stack = spec.last
    position = branch(stack.layers[0], "self_attention").get("position", {})
    config = llama.to_config(KIND, spec)
    if config["head_dim"] * config["num_attention_heads"] == stack.width:
        # transformers' Phi3Config has no such field; its model reads one
        del config["head_dim"]
    config["rope_parameters"]["partial_rotary_factor"] = position.get("fraction", 1.0)
    config[LENGTH] = position.get("scaling", {}).get("original_length", stack.max_length)
    return config | {"resid_pdrop": stack.layers[0].dropout}


def writes(spec: ModelSpec) -> bool:
    """For what Llama and Mistral do not have: LongRoPE, rotary positions on a part of each head, dropout of branches."""
    stack = spec.last
    pre = spec.assembly == "decoder_only" and stack.vision is None and stack.layers[0].placement == "pre"
    return pre and not stack.qk_normed and any(differs(layer, stack.width) for layer in stack.layers)


def differs(layer: LayerSpec, width: int) -> bool:
    """Whether a layer is Phi-3's and not Llama's. With LongRoPE the heads of Phi-3 divide the width."""
    attention = branch(layer, "self_attention")
    position, gated = attention.get("position", {}), branch(layer, "feed_forward").get("name") == "gated"
    long = position.get("scaling", {}).get("name") == "longrope"
    whole = not attention.get("head_dim") or attention["head_dim"] * attention["heads"] == width
    own = position.get("fraction", 1.0) != 1 or layer.dropout > 0 or long
    return gated and not attention.get("bias") and position.get("name") == "rope" and own and (whole or not long)


FAMILIES = (Family("phi3", NAMES, to_document, to_config, writes),)
