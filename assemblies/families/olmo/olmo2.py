"""OLMo 2 (arXiv 2501.00656) in transformers' files: norms after each branch, and of queries and keys over all heads."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import EndTokens, Token, checked
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.heads import decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.families.rows import HEADS, INNER_POST_NORMS, stack_rows
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveFloat, PositiveInt

NAMES = NameTable((*stack_rows("model.", "decoder", INNER_POST_NORMS), *HEADS))
HEADLESS = ("token_classification",)


class Olmo2Config(LlamaConfig):
    vocab_size: PositiveInt = 50_304
    rms_norm_eps: PositiveFloat = 1e-5
    pad_token_id: Token = 1
    bos_token_id: Token = None
    eos_token_id: EndTokens = 50_279


KIND = llama.Kind("olmo2", "Olmo2", Olmo2Config, qk_norm=True, without=HEADLESS)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(Olmo2Config, config)
    stack = reordered(llama.stack_document(KIND, config))
    return decoder_only(config, KIND.architectures, stack, softcap=None)


def reordered(stack: dict[str, Any]) -> dict[str, Any]:
    """A stack of Llama's with OLMo's norms."""
    stack["layer"]["placement"] = "inner_post"
    stack["layer"]["branches"]["self_attention"]["qk_norm_span"] = "width"
    return stack


def to_config(spec: ModelSpec) -> dict[str, Any]:
    return llama.to_config(KIND, spec)


def olmo(spec: ModelSpec) -> bool:
    """Whether a spec has OLMo's norms."""
    return spec.assembly == "decoder_only" and spec.last.vision is None and spec.last.layers[0].placement == "inner_post"


def writes(spec: ModelSpec) -> bool:
    attentions = [layer.self_attention for layer in spec.last.layers]
    windowed = any(attention.mask is not None and attention.mask.window is not None for attention in attentions)
    return olmo(spec) and not windowed and len({attention.position for attention in attentions}) == 1


OLMO2 = Family("olmo2", NAMES, to_document, to_config, writes)
