"""Gemma 2 (arXiv 2408.00118) in transformers' files."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import HeadConfig, StackConfig, checked
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma.common import stack_config, stack_document
from pairform.assemblies.families.heads import architectures, decoder_only, decoder_only_config
from pairform.assemblies.families.rows import HEADS, SANDWICH_NORMS, stack_rows
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

ARCHITECTURES = architectures("Gemma2")
NAMES = NameTable((*stack_rows("model.", "decoder", SANDWICH_NORMS), *HEADS))


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, checked(StackConfig, config))
    require_is_causal_too(config)
    stack = stack_document(
        config,
        causal=config["is_causal"],
        dropout=0.0,
        attention_dropout=config["attention_dropout"],
        inclusive=not config["is_causal"],
    )
    return decoder_only(config, ARCHITECTURES, stack, softcap=config["final_logit_softcapping"])


def require_is_causal_too(config: Mapping[str, Any]) -> None:
    """Refuse a bidirectional model that transformers would give causal masks."""
    if config["use_bidirectional_attention"] and config["is_causal"]:
        expected = "is_causal: false beside it: without that, transformers 5 builds causal masks"
        remedy = "Set is_causal to false for a bidirectional model, or leave both out for a causal one."
        raise SpecError(Problem("use_bidirectional_attention", "true", expected, remedy))


def to_config(spec: ModelSpec) -> dict[str, Any]:
    config = stack_config(spec.last, spec.vocabulary, inclusive=not causal(spec))
    config |= decoder_only_config(spec, ARCHITECTURES, softcap="final_logit_softcapping")
    if not causal(spec):
        # transformers 5 documents the first, but builds its masks from the second
        config |= {"use_bidirectional_attention": True, "is_causal": False}
    return config


def causal(spec: ModelSpec) -> bool:
    mask = spec.last.layers[0].self_attention.mask
    return mask is None or mask.causal


GEMMA2 = Family("gemma2", NAMES, to_document, to_config, writes=lambda spec: spec.assembly == "decoder_only")
