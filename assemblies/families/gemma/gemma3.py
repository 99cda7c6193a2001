"""Gemma 3 with pictures (arXiv 2503.19786) in transformers' files, of any age.

transformers stores `final_logit_softcapping` for these models and never applies it; it is not read, with a warning.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import HeadConfig, checked, inside, part_config, warn_unread
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.gemma.gemma3_stack import Gemma3StackConfig, stack_document
from pairform.assemblies.families.gemma.gemma3_text import text_config
from pairform.assemblies.families.gemma.siglip import PicturesConfig, vision_config, vision_document, vision_rows
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.rows import SANDWICH_NORMS, stack_rows
from pairform.assemblies.families.tokens import tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

ARCHITECTURES = {
    "lm": "Gemma3ForConditionalGeneration",
    "sequence_classification": "Gemma3ForSequenceClassification",
    "none": "Gemma3Model",
}

NAMES = NameTable(
    (
        *stack_rows("language_model.model.", "decoder", SANDWICH_NORMS),
        *vision_rows("", "decoder"),
        Row("language_model.lm_head.weight", "head.weight"),
        Row("score.{tensor}", "head.proj.{tensor}"),
    ),
    spellings=(
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower."),
        ("vision_tower.vision_model.", "vision_tower."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ),
    unread=("vision_tower.head.",),
)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, checked(PicturesConfig, config))
    text = part_config(Gemma3StackConfig, config, "text_config")
    for field, value in (("use_bidirectional_attention", True), ("is_causal", False)):
        if text.get(field) is value:
            found, expected = str(value).lower(), str(not value).lower()
            problem = Problem(f"text_config.{field}", found, f"{expected}: it is read in models without pictures alone")
            raise SpecError(problem)
    with inside("text_config"):
        stack = stack_document(text, reach="past", dropout=0.0, attention_dropout=text["attention_dropout"])
    if text["final_logit_softcapping"] is not None:
        warn_unread("text_config.final_logit_softcapping", text["final_logit_softcapping"], "with pictures it is not applied.")
    head = head_document(config, ARCHITECTURES, softcap=None, tie="decoder", classifier_bias=False)
    return {
        "assembly": "decoder_only",
        "vocabulary": text["vocab_size"],
        "tokens": tokens_document(text) | tokens_document(config),
        "decoder": stack | {"vision": vision_document(config)},
        "head": head,
        "initializer_range": text["initializer_range"],
    }


def to_config(spec: ModelSpec) -> dict[str, Any]:
    vision = spec.last.vision
    if vision is None:
        raise SpecError(Problem("decoder.vision", "nothing", "a vision tower: gemma3_text is the family without"))
    head = head_config(spec, ARCHITECTURES)
    return (
        head
        | vision_config(vision)
        | {
            "text_config": text_config(spec, "past") | {"tie_word_embeddings": head["tie_word_embeddings"]},
        }
    )


def writes(spec: ModelSpec) -> bool:
    return spec.assembly == "decoder_only" and spec.last.vision is not None


GEMMA3 = Family("gemma3", NAMES, to_document, to_config, writes)
