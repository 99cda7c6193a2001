"""Settings of generation, with the names, defaults and bounds of transformers' `GenerationConfig`."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from pairform.assemblies.specs.generation_names import HARMLESS, UNSUPPORTED
from pairform.assemblies.specs.tokens import MOST_ENDS, TokenId
from pairform.registry import LIMIT, Problem, Spec, SpecError, nested, shorten, suggest
from pairform.registry.validation import problems_in

LONGEST = 1 << 20
"""The largest number of new tokens in one call. Their memory is allocated before the first step."""
MOST_SEQUENCES = 100_000
"""The largest number of token sequences in one setting."""
Count = Annotated[int, Field(ge=0, le=LONGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
TokenIds = Annotated[tuple[TokenId, ...], Strict(False), Field(max_length=MOST_SEQUENCES)]
TokenSequence = Annotated[tuple[TokenId, ...], Strict(False), Field(min_length=1, max_length=LONGEST)]
Sequences = Annotated[tuple[TokenSequence, ...], Strict(False), Field(max_length=MOST_SEQUENCES)]
BiasedSequence = Annotated[tuple[TokenSequence, Finite], Strict(False)]
Biases = Annotated[
    tuple[BiasedSequence, ...],
    Strict(False),
    Field(max_length=MOST_SEQUENCES),
    BeforeValidator(lambda biases: list(biases.items()) if isinstance(biases, dict) else biases),
]
"""Pairs, in a call also as a dict."""
Ends = TokenId | Annotated[tuple[TokenId, ...], Strict(False), Field(max_length=MOST_ENDS)]
TOKENS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
"""The settings that a model's spec has too, in `tokens`."""
OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits")
"""The settings of what a call returns."""


def plain(value: Any) -> Any:
    """Tensors, arrays, numpy's numbers, sets and ranges as Python's numbers and lists; other values as they are."""
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


class GenerationSpec(Spec):
    """How to generate. Only the settings that are given replace those of a model (`model_fields_set`).

    Settings of transformers that pairform does not support are kept, so that a folder's are written back, and `generate`
    rejects them.
    """

    model_config = ConfigDict(extra="allow")

    max_new_tokens: Annotated[int, Field(ge=1, le=LONGEST)] | None = Field(
        default=None, description="Largest number of new tokens. Default: 20, unless `max_length` is given."
    )
    max_length: Annotated[int, Field(ge=1, lt=LIMIT)] | None = Field(
        default=None, description="Largest number of tokens with the prompt. `max_new_tokens` takes precedence."
    )
    min_new_tokens: Count | None = Field(default=None, description="Smallest number of new tokens before an end token.")
    min_length: Count = Field(default=0, description="Smallest number of tokens with the prompt before an end token.")
    stop_strings: (
        Annotated[str, Field(min_length=1)]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False), Field(max_length=MOST_ENDS)]
        | None
    ) = Field(default=None, description="Strings that end a row.")
    max_time: Positive | None = Field(default=None, description="Seconds after which the current step is the last.")

    do_sample: bool = Field(default=False, description="Draw tokens instead of taking the highest-scoring one.")
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="With `do_sample`: divides the scores."
    )
    top_k: Annotated[int, Field(ge=0, le=LONGEST)] = Field(
        default=50, description="With `do_sample`: keep the k most probable tokens; 0 keeps all."
    )
    top_p: Share = Field(
        default=1.0, description="With `do_sample`: keep the fewest most probable tokens of total probability p or more."
    )
    min_p: Share | None = Field(
        default=None, description="With `do_sample`: keep tokens of at least p times the probability of the most probable one."
    )
    top_h: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="With `do_sample`: keep the most probable tokens up to this share of the entropy."
    )
    typical_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="With `do_sample`: keep the most typical tokens (arXiv 2202.00666) of total probability p."
    )
    epsilon_cutoff: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="With `do_sample`: keep tokens of at least this probability (arXiv 2210.15191)."
    )
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="With `do_sample`: as `epsilon_cutoff`, lower where the entropy is high."
    )

    repetition_penalty: Positive = Field(
        default=1.0, description="Divides positive scores of tokens that occurred, and multiplies negative ones."
    )
    encoder_repetition_penalty: Positive = Field(
        default=1.0, description="Multiplies positive scores of tokens of the encoder's input, and divides negative ones."
    )
    no_repeat_ngram_size: Count = Field(default=0, description="n-grams of this size occur at most once; 0: no limit.")
    encoder_no_repeat_ngram_size: Count = Field(
        default=0, description="n-grams of this size in the encoder's input do not occur in the output; 0: no limit."
    )
    bad_words_ids: Sequences | None = Field(default=None, description="Token sequences that are not generated.")
    sequence_bias: Biases | None = Field(
        default=None, description="Token sequences, each with a term added to the score of its last token."
    )
    suppress_tokens: TokenIds | None = Field(default=None, description="Tokens that are not generated.")
    begin_suppress_tokens: TokenIds | None = Field(default=None, description="Tokens that are not generated first.")
    exponential_decay_length_penalty: Annotated[tuple[Count, Positive], Strict(False)] | None = Field(
        default=None, description="After this many new tokens, scores of end tokens rise by this factor per token."
    )
    renormalize_logits: bool = Field(default=False, description="Normalise the scores after all processing.")

    num_beams: Annotated[int, Field(ge=1, le=LONGEST)] = Field(
        default=1, description="Unfinished sequences per row in beam search; 1: no beam search."
    )
    length_penalty: Finite = Field(
        default=1.0, description="Of beam search: a sequence's log-probability is divided by its length to this power."
    )
    early_stopping: bool | Literal["never"] = Field(
        default=False,
        description="Of beam search: true ends a row once it has `num_beams` finished sequences, false once no unfinished one "
        'of the present length would score higher, "never" once none of any length could.',
    )
    num_return_sequences: Annotated[int, Field(ge=1, le=LONGEST)] = Field(
        default=1, description="Sequences returned per row, of beam search the best first."
    )

    prompt_lookup_num_tokens: Annotated[int, Field(ge=1, le=LONGEST)] | None = Field(
        default=None,
        description="Tokens to copy from the text so far or the encoder's input, and to verify in one pass. The result is the "
        "same. Default: none.",
    )
    max_matching_ngram_size: Annotated[int, Field(ge=1, le=LONGEST)] | None = Field(
        default=None, description="Last tokens that must have occurred before those that are copied; else fewer. Default: 2."
    )

    pad_token_id: TokenId | None = Field(default=None, description="Fills a row after its end. Default: the model's.")
    bos_token_id: TokenId | None = Field(default=None, description="Start token, if no other is given. Default: the model's.")
    eos_token_id: Ends | None = Field(default=None, description="Tokens that end a row; [] for none. Default: the model's.")
    decoder_start_token_id: TokenId | None = Field(
        default=None, description="First token of a decoder with an encoder. Default: the model's."
    )
    forced_bos_token_id: TokenId | None = Field(
        default=None, description="First token generated after the start token. Default: the model's."
    )
    forced_eos_token_id: Ends | None = Field(
        default=None, description="Tokens of which one is the last at the largest length. Default: the model's."
    )

    return_dict_in_generate: bool = Field(default=False, description="Return a `GenerationOutput`; of a call only.")
    output_scores: bool = Field(default=False, description="Return the processed scores of each step too.")
    output_logits: bool = Field(default=False, description="Return the logits of each step too.")

    @model_validator(mode="after")
    def known_names(self) -> Self:
        """The settings themselves; an error for a name that transformers does not have."""
        names = self.model_extra or {}
        if unknown := [name for name in names if name not in UNSUPPORTED]:
            expected, known = "a setting of generation", tuple(type(self).model_fields)
            raise nested(
                Problem(name, f"an unknown field with value {shorten(names[name])}", expected, suggest(name, known))
                for name in unknown
            )
        return self

    def __init__(self, **settings: Any) -> None:
        """Settings by name; None is one that is not given.

        Raises:
            SpecError: an invalid value, or an unknown name.
        """
        given = {name: plain(value) for name, value in settings.items() if value is not None}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SpecError(list(problems_in(error, given, type(self)))) from None

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, lenient: bool = False) -> Self:
        """The settings in a document of transformers, without those that change no tokens: -1 is a token that is not given.

        Args:
            lenient: ignore unknown names, as in files, which may contain any.

        Raises:
            SpecError: an invalid value, or an unknown name.
        """
        known = cls.model_fields.keys() | UNSUPPORTED.keys()
        kept = {
            name: None if name in TOKENS and plain(value) == -1 else value
            for name, value in document.items()
            if (name in known if lenient else name not in HARMLESS)
        }
        return cls(**kept)

    @classmethod
    def of(cls, config: Any) -> "GenerationSpec":
        """What `generation_config` may be: settings, a dict, an object with `to_dict` as in transformers, or None.

        Raises:
            SpecError: it is something else, or contains an invalid value or an unknown name.
        """
        if config is None or isinstance(config, GenerationSpec):
            return config or cls()
        if not isinstance(config, Mapping) and not hasattr(config, "to_dict"):
            expected = "a GenerationSpec, a dict, or a GenerationConfig of transformers"
            raise SpecError(Problem("generation_config", f"a value of type {type(config).__name__}", expected))
        return cls.from_document(config if isinstance(config, Mapping) else config.to_dict())

    def given(self) -> dict[str, Any]:
        """The settings that are given, as JSON data."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)

    def updated(self, other: "GenerationSpec") -> "GenerationSpec":
        """These settings with those that are given in `other`."""
        changed = {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update=changed) if changed else self

    def without(self, names: Iterable[str]) -> "GenerationSpec":
        """These settings with defaults for `names`."""
        kept = {name: getattr(self, name) for name in self.model_fields_set - set(names)}
        return GenerationSpec().model_copy(update=kept)

    @property
    def unsupported(self) -> list[str]:
        """The given settings of transformers that pairform does not support."""
        return [name for name, value in (self.model_extra or {}).items() if value != UNSUPPORTED[name].neutral]
