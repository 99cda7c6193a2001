"""T5Gemma 2 (arXiv 2512.14856) in transformers' files."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pairform.assemblies.families.config import (
    HeadConfig,
    TokenId,
    checked,
    inside,
    part_config,
    require_is_causal,
)
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.gemma.gemma3_stack import Gemma3StackConfig, Reach, stack_config, stack_document
from pairform.assemblies.families.gemma.siglip import (
    PICTURE_ALIASES,
    PicturesConfig,
    vision_config,
    vision_document,
    vision_rows,
)
from pairform.assemblies.families.heads import architectures, head_config, head_document
from pairform.assemblies.families.rows import stack_rows
from pairform.assemblies.families.t5gemma.t5gemma import HEADS, NORMS
from pairform.assemblies.families.tokens import encoder_tokens, tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Probability, Problem, SpecError, shorten

ARCHITECTURES = architectures("T5Gemma2", lm="ForConditionalGeneration")
ENCODER = "t5gemma2_encoder"


class T5Gemma2Config(HeadConfig):
    aliases: ClassVar[Mapping[str, str]] = PICTURE_ALIASES
    image_token_index: TokenId = 256_001


class TextConfig(Gemma3StackConfig):
    dropout_rate: Probability = 0.0


class EncoderTextConfig(TextConfig):
    is_causal: bool = False


def rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of a stack, with the embedding of the end of an image."""
    end_of_image = Row(theirs + "embed_tokens.eoi_embedding", ours + ".embedding.end_of_image")
    return end_of_image, *stack_rows(theirs, ours, NORMS)


NAMES = NameTable(
    (
        *vision_rows("model.encoder.", "encoder"),
        *rows("model.{part}.", "{part}"),
        *HEADS,
    ),
    spellings=(
        ("model.encoder.text_model.", "model.encoder."),
        ("model.encoder.vision_tower.vision_model.", "model.encoder.vision_tower."),
    ),
    unread=("model.encoder.vision_tower.head.",),
)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(T5Gemma2Config, config)
    if not config["is_encoder_decoder"]:
        raise SpecError(Problem("is_encoder_decoder", "false", "true: an encoder alone is a t5gemma2_encoder"))
    theirs = part_config(PicturesConfig, config, "encoder") | {"image_token_index": config["image_token_index"]}
    decoder = part_config(TextConfig, config, "decoder")
    dropout = {"dropout": config["dropout_rate"], "attention_dropout": config["attention_dropout"]}
    with inside("encoder"):
        if theirs.get("model_type", ENCODER) != ENCODER:
            raise SpecError(Problem("model_type", shorten(theirs["model_type"]), ENCODER))
        text = part_config(EncoderTextConfig, theirs, "text_config")
        encoder = encoder_document(theirs, text, vision_dropout=config["attention_dropout"], **dropout)
    encoder["tokens"] = encoder_tokens(tokens_document(text), tokens_document(decoder))
    for field in ("hidden_size", "vocab_size"):
        if text[field] != decoder[field]:
            expected = f"the encoder's, {text[field]}: transformers has no other pairs"
            raise SpecError(Problem(f"decoder.{field}", str(decoder[field]), expected))
    with inside("decoder"):
        require_is_causal(decoder, True)
        stack = stack_document(decoder, reach="past", **dropout) | {"embedding": encoder["embedding"]}
    stack["layer"]["branches"]["self_attention"]["name"] = "merged_attention"
    head = head_document(config, ARCHITECTURES, softcap=decoder["final_logit_softcapping"], tie="encoder")
    if "labels" in head:
        head["dropout"] = config["classifier_dropout_rate"]
    return {
        "assembly": "encoder_decoder",
        "vocabulary": decoder["vocab_size"],
        "tokens": tokens_document(decoder),
        "encoder": encoder,
        "decoder": stack,
        "tie_embeddings": config["tie_word_embeddings"],
        "head": head,
        "initializer_range": decoder["initializer_range"],
    }


def encoder_document(
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    dropout: float,
    attention_dropout: float,
    vision_dropout: float | None = None,
) -> dict[str, Any]:
    """The document of our encoder for checked configurations: the encoder's and its text part's."""
    with inside("text_config"):
        require_is_causal(text, False)
        stack = stack_document(text, reach="both", dropout=dropout, attention_dropout=attention_dropout)
    if config["eoi_token_index"] is None:
        raise SpecError(Problem("eoi_token_index", "nothing", "an id: these models have an embedding for it"))
    stack["embedding"]["end_of_image"] = config["eoi_token_index"]
    return stack | {"vision": vision_document(config, attention_dropout=vision_dropout)}


def to_config(spec: ModelSpec) -> dict[str, Any]:
    if spec.bridge.name != "none":
        raise SpecError(Problem("bridge", repr(spec.bridge.name), "none: transformers has only pairs of one width"))
    head = head_config(spec, ARCHITECTURES, softcap="final_logit_softcapping")
    softcap = head.pop("final_logit_softcapping", None)
    encoder = encoder_config(spec)
    decoder = text_config(spec, "decoder", "past")
    same = ("attention_dropout", "dropout_rate", "pad_token_id", "bos_token_id", "eos_token_id")
    return (
        head
        | {field: decoder[field] for field in (*same, "vocab_size")}
        | {
            "encoder": encoder,
            "decoder": decoder | {"model_type": "t5gemma2_decoder", "final_logit_softcapping": softcap},
            "image_token_index": encoder["image_token_index"],
            "eoi_token_index": encoder["eoi_token_index"],
            "classifier_dropout_rate": HeadSpec.of(spec.head).dropout,
            "is_encoder_decoder": True,
            "tie_word_embeddings": spec.tie_embeddings,
        }
    )


def encoder_config(spec: ModelSpec) -> dict[str, Any]:
    """The encoder's configuration, with what it holds."""
    vision = spec.stacks["encoder"].vision
    if vision is None:
        raise SpecError(Problem("encoder.vision", "nothing", "a vision tower, which transformers' T5Gemma 2 always has"))
    return vision_config(vision) | {
        "model_type": ENCODER,
        "initializer_range": spec.initializer_range,
        "text_config": text_config(spec, "encoder", "both") | {"model_type": "t5gemma2_text"},
    }


def text_config(spec: ModelSpec, part: str, reach: Reach) -> dict[str, Any]:
    """One stack's configuration."""
    stack = spec.stacks[part]
    first = stack.layers[0]
    return (
        stack_config(stack, spec.vocabulary_of(part), reach)
        | tokens_config(spec, part)
        | {
            "attention_dropout": first.self_attention.dropout,
            "dropout_rate": first.dropout,
            "initializer_range": spec.initializer_range,
            "final_logit_softcapping": None,
        }
    )


def writes(spec: ModelSpec) -> bool:
    merged = any(layer.self_attention.name == "merged_attention" for layer in spec.last.layers)
    return spec.assembly == "encoder_decoder" and merged


T5GEMMA2 = Family("t5gemma2", NAMES, to_document, to_config, writes)
