"""Special tokens of transformers' config.json and generation_config.json, and of specs.

`from_pretrained` followed by `generate` takes the tokens of generated text from generation_config.json, else from the top of
config.json, else from the configuration of the stack that generates (transformers 5). The other settings of generation
(sampling, beams, penalties) are read from generation_config.json, or without one from the top of config.json.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import Config, EndTokens, Token, checked
from pairform.assemblies.specs.generation import OUTPUTS, GenerationSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.tokens import TokenSpec

GENERATION = "generation_config.json"
FORCED = {"forced_bos": "forced_bos_token_id", "forced_eos": "forced_eos_token_id"}
FIELDS = {
    "pad": "pad_token_id",
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "start": "decoder_start_token_id",
    **FORCED,
}


class TokensConfig(Config):
    pad_token_id: Token = None
    bos_token_id: Token = None
    eos_token_id: EndTokens = None
    decoder_start_token_id: Token = None
    forced_bos_token_id: Token = None
    forced_eos_token_id: EndTokens = None


def tokens_document(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that a configuration names, as in our specs."""
    return {ours: config[theirs] for ours, theirs in FIELDS.items() if config.get(theirs) is not None}


def tokens_config(spec: ModelSpec, part: str = "decoder") -> dict[str, Any]:
    """The inverse, of what the stack `part` reads."""
    tokens = spec.tokens_of(part) if part in spec.stacks else spec.tokens
    ids = tokens.model_dump(mode="json")
    always = ("pad", "bos", "eos")
    return {theirs: ids[ours] for ours, theirs in FIELDS.items() if ours in always or ids[ours] is not None}


def encoder_tokens(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> dict[str, Any] | None:
    """The encoder's tokens, if its padding differs from the decoder's; its other special tokens have no effect."""
    own, others = (TokenSpec.read(tokens) for tokens in (encoder, decoder))
    if (own.pad, own.padding) == (others.pad, others.padding):
        return None
    return {name: token for name, token in encoder.items() if name not in ("start", "wrap", *FORCED)}


def with_tokens(tokens: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's tokens with those that `settings` name, a config.json or generation_config.json.

    The model is built with the spec's pad token (padding is masked, its embedding is not trained), so that one stays. Without
    one, the pad token of `settings` is taken unless it also ends text: such a token may occur inside a prompt.
    """
    given = tokens_document(checked(TokensConfig, settings))
    ends = given.get("eos", tokens.get("eos"))
    if tokens.get("pad") is not None or given.get("pad") in (ends if isinstance(ends, list | tuple) else [ends]):
        given.pop("pad", None)
    return {**tokens, **given}


def with_generation_tokens(tokens: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`with_tokens` for a generation_config.json: beside one, transformers forces no tokens of config.json."""
    return with_tokens({name: token for name, token in tokens.items() if name not in FORCED}, settings)


def generation_settings(settings: Mapping[str, Any], spec: ModelSpec) -> GenerationSpec:
    """The settings in a generation_config.json or config.json, without the tokens that the spec has too, and without those of
    a call's output."""
    found = GenerationSpec.from_document(settings, lenient=True)
    tokens = spec.tokens.model_dump()
    same = [theirs for ours, theirs in FIELDS.items() if getattr(found, theirs) == tokens[ours]]
    return found.without((*same, *OUTPUTS))


def with_spec_tokens(settings: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The inverse: generation settings with the spec's tokens in place of their own."""
    others = {field: value for field, value in settings.items() if field not in TokensConfig.model_fields}
    return others | {field: token for field, token in tokens_config(spec).items() if token is not None}
