"""The special tokens of generated text in transformers' folders: generation_config.json, else the top of config.json, else the
configuration of the stack that generates.

`from_pretrained` followed by `generate` resolves them in this order in transformers 5. All other settings of
generation_config.json (sampling, beams, penalties) are arguments of `generate` here and are not read.
"""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import Config, EndTokens, Token, checked
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec

GENERATION = "generation_config.json"


class TokensConfig(Config):
    pad_token_id: Token = None
    bos_token_id: Token = None
    eos_token_id: EndTokens = None
    decoder_start_token_id: Token = None


def with_tokens(spec: ModelSpec, settings: Mapping[str, Any]) -> ModelSpec:
    """`spec` with the tokens that `settings` name, a config.json or generation_config.json.

    The model itself is built with its pad token (padding is masked, its embedding is not trained), so a pad token in the spec
    stays. Without one, the settings' is taken unless it also ends text: such a token may stand in the middle of a prompt.
    """
    given = tokens_document(checked(TokensConfig, settings))
    ends = given.get("eos", spec.tokens.eos)
    if spec.tokens.pad is not None or given.get("pad") in (ends if isinstance(ends, list | tuple) else [ends]):
        given.pop("pad", None)
    document = spec.document()
    tokens = document["tokens"] | given
    return spec if tokens == document["tokens"] else ModelSpec.read(document | {"tokens": tokens})


def with_spec_tokens(settings: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The inverse: generation settings with the spec's tokens in place of their own."""
    others = {field: value for field, value in settings.items() if field not in TokensConfig.model_fields}
    return others | {field: token for field, token in tokens_config(spec).items() if token is not None}
