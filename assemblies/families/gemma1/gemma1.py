"""Gemma (arXiv 2403.08295) in transformers' files: Llama with Gemma's norms and embeddings."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import EndTokens, HeadConfig, Token, checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma.gemma2 import require_is_causal_too
from pairform.assemblies.families.heads import decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt


class GemmaConfig(LlamaConfig):
    vocab_size: PositiveInt = 256_000
    hidden_size: PositiveInt = 3072
    intermediate_size: PositiveInt = 24_576
    num_hidden_layers: Depth = 28
    num_attention_heads: PositiveInt = 16
    num_key_value_heads: PositiveInt | None = 16
    head_dim: PositiveInt | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: PositiveInt = 8192
    rms_norm_eps: PositiveFloat = 1e-6
    pad_token_id: Token = 0
    eos_token_id: EndTokens = 1
    bos_token_id: Token = 2
    tie_word_embeddings: bool = True


KIND = llama.Kind("gemma", "Gemma", GemmaConfig)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, checked(GemmaConfig, config))
    require_is_causal_too(config)
    # transformers takes the name of the first releases for the tanh approximation that they were trained with
    config["hidden_act"] = "gelu_pytorch_tanh" if config["hidden_act"] == "gelu" else config["hidden_act"]
    stack = llama.stack_document(KIND, config)
    stack["layer"]["norm"]["unit_offset"] = True
    stack["embedding"]["scale"] = "sqrt_width"
    return decoder_only(config, KIND.architectures, stack, softcap=None)


def to_config(spec: ModelSpec) -> dict[str, Any]:
    config = llama.to_config(KIND, spec)
    # as in Gemma 2: documented, beside the field that the masks are built from
    return config if config.get("is_causal", True) else config | {"use_bidirectional_attention": True}


def writes(spec: ModelSpec) -> bool:
    stack = spec.last
    pre = spec.assembly == "decoder_only" and stack.vision is None and stack.layers[0].placement == "pre"
    return pre and not stack.qk_normed and bool(stack.layers[0].norm.document().get("unit_offset"))


FAMILIES = (Family("gemma", llama.NAMES, to_document, to_config, writes),)
