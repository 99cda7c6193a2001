"""The fields of config.json that the families share: types, transformers' defaults, and the names of activations."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability, Problem, Spec, SpecError, shorten

TokenId = Annotated[int, Field(ge=0)]
Token = Annotated[TokenId | None, BeforeValidator(lambda token: None if token == -1 else token)]
"""A token that a model may do without: null, or -1 in files of 2023."""
EndTokens = Annotated[TokenId | list[TokenId] | None, BeforeValidator(lambda tokens: None if tokens == -1 else tokens)]

ACTIVATIONS: Mapping[str, str] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
    "sigmoid": "sigmoid",
}
"""transformers' names of our activations. The first of several is written. `gelu_fast` has ten digits of the constant."""
ACTIVATION_NAMES: Mapping[str, str] = {ours: theirs for theirs, ours in reversed(list(ACTIVATIONS.items()))}
"""The inverse."""
EARLIER_ACTIVATION_NAMES: Mapping[str, str] = {**ACTIVATION_NAMES, "gelu_tanh": "gelu_new"}
"""As `ACTIVATION_NAMES`, with the name in files of BERT, GPT-2 and T5. transformers rounds the two differently."""


class Config(Spec):
    """Fields that are declared must have their type; all others are ignored.

    aliases: second names that transformers gives to fields. In a file with both, the second name counts.
    """

    model_config = ConfigDict(extra="allow")
    aliases: ClassVar[Mapping[str, str]] = {}


class RopeConfig(Config):
    rope_type: str | None = None
    type: str | None = None
    rope_theta: PositiveFloat | None = None
    factor: PositiveFloat | None = None
    original_max_position_embeddings: PositiveInt | None = None
    partial_rotary_factor: PositiveFloat | None = None
    attention_factor: PositiveFloat | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    beta_fast: PositiveFloat | None = None
    beta_slow: PositiveFloat | None = None
    truncate: bool | None = None
    low_freq_factor: PositiveFloat | None = None
    high_freq_factor: PositiveFloat | None = None
    short_factor: list[PositiveFloat] | None = None
    long_factor: list[PositiveFloat] | None = None


class AnyStackConfig(Config):
    """Fields with one default in all families with rotary positions."""

    initializer_range: PositiveFloat = 0.02
    rms_norm_eps: PositiveFloat = 1e-6
    decoder_start_token_id: Token = None
    attention_bias: bool = False
    rope_parameters: RopeConfig | None = None
    rope_scaling: RopeConfig | None = None
    rope_theta: PositiveFloat | None = None
    is_causal: bool = True


class StackConfig(AnyStackConfig):
    """One stack."""

    # transformers' defaults for Gemma 2, which are those of the 2B model
    vocab_size: PositiveInt = 256000
    hidden_size: PositiveInt = 2304
    intermediate_size: PositiveInt = 9216
    num_hidden_layers: Depth = 26
    num_attention_heads: PositiveInt = 8
    num_key_value_heads: PositiveInt = 4
    head_dim: PositiveInt = 256
    hidden_activation: str | None = None
    hidden_act: str | None = None
    max_position_embeddings: PositiveInt = 8192
    pad_token_id: Token = 0
    eos_token_id: EndTokens = 1
    bos_token_id: Token = 2
    attention_dropout: Probability = 0.0
    query_pre_attn_scalar: Annotated[int | float, Field(gt=0, le=1e12)] = 256
    sliding_window: PositiveInt | None = 4096
    final_logit_softcapping: PositiveFloat | None = 30.0
    attn_logit_softcapping: PositiveFloat | None = 50.0
    layer_types: list[str] | None = None


class EncoderStackConfig(StackConfig):
    """A bidirectional stack."""

    is_causal: bool = False


class HeadConfig(Config):
    """The fields of heads, and those beside the stacks."""

    architectures: list[str] | None = None
    tie_word_embeddings: bool = True
    id2label: dict[str, Any] | None = None
    num_labels: PositiveInt = 2
    problem_type: str | None = None
    dropout_rate: Probability = 0.0
    attention_dropout: Probability = 0.0
    classifier_dropout_rate: Probability = 0.0
    classifier_dropout: Probability | None = None
    hidden_dropout: Probability | None = None
    is_encoder_decoder: bool = True
    use_bidirectional_attention: bool | None = None


def checked(kind: type[Config], config: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`config` with defaults for what it leaves out; a `SpecError` names each field of another type."""
    renamed = {field: config[alias] for alias, field in kind.aliases.items() if alias in config}
    return kind.read({**config, **renamed}, where=where).model_dump()


def activation_named(name: str, field: str) -> str:
    """Our name for transformers' activation `name`, found in `field`."""
    if name not in ACTIVATIONS:
        raise SpecError(Problem(field, repr(name), f"one of {', '.join(ACTIVATIONS)}"))
    return ACTIVATIONS[name]


def part_config(kind: type[Config], config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A configuration inside another, checked; absent, all of it is left to defaults."""
    own = config.get(part)
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        raise SpecError(Problem(part, shorten(own), f"an object: the configuration of {part}"))
    return checked(kind, own, part)


IS_CAUSAL = {
    True: "true: with false, transformers lets each token of this decoder see the later ones",
    False: "false: with true, transformers' sdpa kernel hides later tokens from this encoder, and its eager one does not",
}


def require_is_causal(config: Mapping[str, Any], wanted: bool) -> None:
    """Refuse a decoder of a pair that transformers would make bidirectional, and an encoder that the file declares causal."""
    if config["is_causal"] is not wanted:
        raise SpecError(Problem("is_causal", str(config["is_causal"]).lower(), IS_CAUSAL[wanted]))


def warn_unread(field: str, value: object, why: str) -> None:
    """Warn of a field that a file sets and that neither transformers nor pairform reads."""
    warnings.warn(f"{field} is {shorten(value)} and is not read, as in transformers: {why}", stacklevel=2)


@contextmanager
def inside(part: str) -> Iterator[None]:
    """Put `part` before the paths of the problems raised inside."""
    try:
        yield
    except SpecError as error:
        raise SpecError([problem.inside(part) for problem in error.problems]) from None
