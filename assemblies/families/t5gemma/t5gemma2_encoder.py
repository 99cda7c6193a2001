"""The encoder of T5Gemma 2 alone (arXiv 2512.14856) in transformers' files.

transformers gives an encoder alone its end-of-image embedding at the id 256000, whatever the file says. The file is read as
what it says; an encoder with another id is not written.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import HeadConfig, checked, part_config
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma.siglip import PicturesConfig, vision_rows
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.t5gemma.t5gemma2 import EncoderTextConfig, encoder_config, encoder_document, rows
from pairform.assemblies.families.tokens import tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

ARCHITECTURES = {"none": "T5Gemma2Encoder", "lm": "T5Gemma2Encoder"}
"""A file that names none means the first too."""
END_OF_IMAGE = 256_000

NAMES = NameTable(
    (*vision_rows("", "encoder"), *rows("", "encoder")),
    spellings=(("text_model.", ""), ("vision_tower.vision_model.", "vision_tower.")),
    unread=("vision_tower.head.",),
)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(HeadConfig, checked(PicturesConfig, config))
    text = part_config(EncoderTextConfig, config, "text_config")
    dropout = {"dropout": text["dropout_rate"], "attention_dropout": text["attention_dropout"]}
    return {
        "assembly": "encoder_only",
        "vocabulary": text["vocab_size"],
        "tokens": tokens_document(text),
        "encoder": encoder_document(config, text, **dropout),
        "head": head_document(config, ARCHITECTURES, softcap=None, tie="encoder"),
        "initializer_range": text["initializer_range"],
    }


def to_config(spec: ModelSpec) -> dict[str, Any]:
    end = spec.stacks["encoder"].embedding.document().get("end_of_image")
    if end != END_OF_IMAGE:
        expected = f"{END_OF_IMAGE}, which transformers gives every T5Gemma 2 encoder that stands alone"
        raise SpecError(Problem("encoder.embedding.end_of_image", str(end), expected))
    return head_config(spec, ARCHITECTURES) | encoder_config(spec)


def writes(spec: ModelSpec) -> bool:
    return spec.assembly == "encoder_only" and (spec.last.qk_normed or spec.last.vision is not None)


T5GEMMA2_ENCODER = Family("t5gemma2_encoder", NAMES, to_document, to_config, writes, base_prefix="")
