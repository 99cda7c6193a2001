"""Special tokens between config.json and our specs."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.tokens import TokenSpec


def tokens_document(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {"pad": "pad_token_id", "bos": "bos_token_id", "eos": "eos_token_id", "start": "decoder_start_token_id"}
    return {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}


def tokens_config(spec: ModelSpec, part: str = "decoder") -> dict[str, Any]:
    """The inverse, of what the stack `part` reads."""
    tokens = spec.tokens_of(part) if part in spec.stacks else spec.tokens
    eos = list(tokens.eos) if isinstance(tokens.eos, tuple) else tokens.eos
    config = {"pad_token_id": tokens.pad, "bos_token_id": tokens.bos, "eos_token_id": eos}
    return config if tokens.start is None else config | {"decoder_start_token_id": tokens.start}


def encoder_tokens(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> dict[str, Any] | None:
    """The encoder's tokens, if its padding is another than the decoder's; other special tokens make no difference to it."""
    own, others = (TokenSpec.read(tokens) for tokens in (encoder, decoder))
    if (own.pad, own.padding) == (others.pad, others.padding):
        return None
    return {name: token for name, token in encoder.items() if name != "start"}
