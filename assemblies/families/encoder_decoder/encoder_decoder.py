"""transformers' EncoderDecoderModel: an encoder and a decoder in one folder, each with its own configuration and names.

The encoder is a BERT or RoBERTa, the decoder one of those or a GPT-2. transformers builds the encoder with a pooler that
nothing reads; we have none, so that it reports one as newly initialised when it loads a folder of ours.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pairform.assemblies.families.bert import kinds
from pairform.assemblies.families.bert import names as bert_names
from pairform.assemblies.families.bert.stack import offset_of, stack_config, stack_document
from pairform.assemblies.families.config import Config, Token, checked, inside, part_config
from pairform.assemblies.families.encoder_decoder.decoders import DECODERS, Decoder
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.gpt2.gpt2 import REFUSED
from pairform.assemblies.families.tokens import encoder_tokens, tokens_config, tokens_document, with_tokens
from pairform.assemblies.families.unread import unread
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError, shorten

ARCHITECTURE = "EncoderDecoderModel"
ENCODERS = {kind.model_type: kind for kind in kinds.KINDS}
ENCODER_UNREAD = tuple(f"encoder.{name}" for name in (*bert_names.BUFFERS, "pooler."))


class PairConfig(Config):
    architectures: list[str] | None = None
    encoder: dict[str, Any]
    decoder: dict[str, Any]
    pad_token_id: Token = None
    decoder_start_token_id: Token = None
    is_encoder_decoder: bool = True
    tie_encoder_decoder: bool = False


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(PairConfig, config)
    refuse_others(config)
    kind, decoder = member(config, "encoder", ENCODERS), member(config, "decoder", DECODERS)
    own, other = part_config(kind.config, config, "encoder"), part_config(decoder.config, config, "decoder")
    for part, settings in (("encoder", own), ("decoder", other)):
        check_role(part, settings)
        refuse_is_causal(part, config[part])
    tokens = with_tokens(tokens_document(other), config)
    with inside("encoder"):
        encoder = stack_document(kind, own) | {"vocabulary": own["vocab_size"]}
    with inside("decoder"):
        stack, head = decoder.stack(other), decoder.head(other)
    if (of_encoder := encoder_tokens(tokens_document(own), tokens)) is not None:
        encoder["tokens"] = of_encoder
    return {
        "assembly": "encoder_decoder",
        "vocabulary": other["vocab_size"],
        "tokens": tokens,
        "encoder": encoder,
        "decoder": stack,
        "bridge": {"name": "linear", "bias": True} if encoder["width"] != stack["width"] else {"name": "none"},
        "head": head,
        "initializer_range": other["initializer_range"],
    }


def refuse_others(config: Mapping[str, Any]) -> None:
    """What transformers 4 or another class would read from such a file."""
    if config["architectures"] not in (None, [ARCHITECTURE]):
        raise SpecError(Problem("architectures", shorten(config["architectures"]), ARCHITECTURE))
    if not config["is_encoder_decoder"]:
        raise SpecError(Problem("is_encoder_decoder", "false", "true"))


def member(config: Mapping[str, Any], part: str, known: Mapping[str, Any]) -> Any:
    """The family of a side."""
    model_type = config[part].get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        raise SpecError(unread(f"{part}.model_type", model_type, known))
    return known[model_type]


def check_role(part: str, config: Mapping[str, Any]) -> None:
    """An encoder is bidirectional; a decoder is causal and attends to the encoder."""
    crossed = part == "decoder"
    wanted = dict.fromkeys(("is_decoder", "add_cross_attention"), crossed)
    if "n_embd" in config:  # GPT-2 is a decoder in any case
        wanted = {"add_cross_attention": True, **{field: False for field in REFUSED if field != "add_cross_attention"}}
    for field, value in wanted.items():
        if config[field] is not value:
            expected = f"{str(value).lower()}, as in every {part} of an {ARCHITECTURE} here"
            raise SpecError(Problem(f"{part}.{field}", str(config[field]).lower(), expected))
    size = config.get("cross_attention_hidden_size")
    width = config.get("n_embd", config.get("hidden_size"))
    if size not in (None, width):
        raise SpecError(
            Problem(f"{part}.cross_attention_hidden_size", shorten(size), f"null, or the decoder's width of {width}")
        )


def refuse_is_causal(part: str, config: Mapping[str, Any]) -> None:
    """transformers applies the field of a decoder to its attention to the encoder too."""
    value = config.get("is_causal")
    if value is not None and (part == "decoder" or value is not False):
        expected = "false, or nothing" if part == "encoder" else "nothing: it also changes the attention to the encoder"
        raise SpecError(Problem(f"{part}.is_causal", shorten(value), expected))


def decoder_of(spec: ModelSpec) -> Decoder | None:
    """The family of a spec's decoder, if transformers' class has it."""
    return next((decoder for decoder in DECODERS.values() if decoder.is_like(spec.last)), None)


def to_config(spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    decoder = decoder_of(spec)
    assert spec.encoder is not None, "checked by `writes`"
    assert decoder is not None, "checked by `writes`"
    kind = kinds.ROBERTA if offset_of(spec.encoder) else kinds.BERT
    common = {"initializer_range": spec.initializer_range}
    encoder = stack_config(spec.encoder, spec.vocabulary_of("encoder")) | tokens_config(spec, "encoder") | common
    own = decoder.to_config(spec.last, spec.vocabulary) | tokens_config(spec) | common
    roles = {"add_cross_attention": True, "is_decoder": True, "tie_word_embeddings": spec.head_tie is not None}
    return {
        "architectures": [ARCHITECTURE],
        "is_encoder_decoder": True,
        "tie_word_embeddings": spec.head_tie is not None,
        "encoder": encoder | {"model_type": kind.model_type, "architectures": [f"{kind.classes}Model"]},
        "decoder": own | roles | {"model_type": decoder.model_type, "architectures": [decoder.architecture]},
    } | tokens_config(spec)


def writes(spec: ModelSpec) -> bool:
    if spec.encoder is None or spec.decoder is None or spec.tie_embeddings:
        return False
    return offset_of(spec.encoder) is not None and decoder_of(spec) is not None


def names(decoder: Decoder, *, tied: bool) -> NameTable:
    theirs = decoder.names(tied)
    bridge = Row("enc_to_dec_proj.{tensor}", "bridge.{tensor}")
    rows = (*bert_names.stack_rows("encoder.", "encoder"), *theirs.rows, bridge)
    return NameTable(rows, unread=(*ENCODER_UNREAD, *theirs.unread), spares=theirs.spares)


def written(spec: ModelSpec) -> NameTable:
    decoder = decoder_of(spec)
    assert decoder is not None, "checked by `writes`"
    return names(decoder, tied=spec.head_tie is not None)


def doubles(spec: ModelSpec) -> Mapping[str, str]:
    decoder = decoder_of(spec)
    return {} if decoder is None or spec.head_tie is not None else decoder.doubles


def constants(spec: ModelSpec) -> dict[str, Tensor]:
    """The encoder's pooler, which transformers builds and does not read."""
    assert spec.encoder is not None, "checked by `writes`"
    width, pooler = spec.encoder.width, "encoder.pooler.dense."
    return {pooler + "weight": torch.zeros(width, width), pooler + "bias": torch.zeros(width)}


ANY = NameTable(tuple(dict.fromkeys(row for decoder in DECODERS.values() for row in names(decoder, tied=False).rows)))
FAMILIES = (
    Family(
        "encoder-decoder",
        ANY,
        to_document,
        to_config,
        writes,
        base_prefix="",
        written=written,
        by_spec=True,
        doubles=doubles,
        constants=constants,
    ),
)
