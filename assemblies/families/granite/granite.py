"""Granite 3 (IBM) in transformers' files: Llama with factors on embeddings, branches, scores and logits."""

from collections.abc import Mapping
from math import inf, nextafter
from typing import Any

from pairform.assemblies.families.config import checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.families.heads import decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import PositiveFloat

HEADLESS = ("sequence_classification", "token_classification")


class GraniteConfig(LlamaConfig):
    embedding_multiplier: PositiveFloat = 1.0
    logits_scaling: PositiveFloat = 1.0
    residual_multiplier: float = 1.0
    attention_multiplier: PositiveFloat = 1.0


KIND = llama.Kind("granite", "Granite", GraniteConfig, mlp_bias=True, without=HEADLESS)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(GraniteConfig, config)
    stack = llama.stack_document(KIND, config)
    if config["embedding_multiplier"] != 1:
        stack["embedding"] |= {"scale": config["embedding_multiplier"], "scale_given": True}
    stack["layer"]["branches"]["self_attention"]["scale"] = config["attention_multiplier"]
    if config["residual_multiplier"] != 1:
        stack["layer"]["residual"] = {"name": "scaled", "scale": config["residual_multiplier"]}
    document = decoder_only(config, KIND.architectures, stack, softcap=None)
    if document["head"]["name"] == "lm" and config["logits_scaling"] != 1:
        document["head"]["scale"] = 1 / config["logits_scaling"]
    return document


def to_config(spec: ModelSpec) -> dict[str, Any]:
    layer, embedding, scale = spec.last.layers[0], spec.last.embedding.document(), HeadSpec.of(spec.head).scale
    attention = branch(layer, "self_attention")
    return llama.to_config(KIND, spec) | {
        "embedding_multiplier": spec.last.width**0.5 if embedding.get("scale") == "sqrt_width" else embedding.get("scale", 1.0),
        "logits_scaling": divisor(scale) if isinstance(scale, float) else 1.0,
        "residual_multiplier": layer.residual.document().get("scale", 1.0),
        "attention_multiplier": attention.get("scale") or head_dim(layer, spec.last.width) ** -0.5,
    }


def divisor(scale: float) -> float:
    """The number whose inverse is exactly `scale`, if there is one."""
    near = 1 / scale
    return next(
        (found for found in (round(near), near, nextafter(near, inf), nextafter(near, 0)) if found and 1 / found == scale), near
    )


def head_dim(layer: LayerSpec, width: int) -> int:
    return layer.self_attention.head_dim or width // layer.self_attention.heads


def writes(spec: ModelSpec) -> bool:
    """For what Llama cannot express: any of the factors."""
    stack, layer = spec.last, spec.last.layers[0]
    if spec.assembly != "decoder_only" or stack.vision is not None or layer.placement != "pre" or stack.qk_normed:
        return False
    attention = branch(layer, "self_attention")
    scaled = attention.get("scale") not in (None, head_dim(layer, stack.width) ** -0.5)
    factor = stack.embedding.document().get("scale", 1.0)
    numbered = factor not in (1.0, "sqrt_width") or isinstance(HeadSpec.of(spec.head).scale, float)
    return scaled or numbered or layer.residual.name == "scaled"


FAMILIES = (Family("granite", llama.NAMES, to_document, to_config, writes),)
