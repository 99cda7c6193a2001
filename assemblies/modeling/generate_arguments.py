"""The types of the keyword arguments of `Model.generate`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from jaxtyping import Int
from torch import Tensor

from pairform.assemblies.modeling.outputs import EncoderOutputs
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.blocks.cache import Cache

Ids: TypeAlias = int | Sequence[int] | None
ScoreFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From tokens so far, `[rows, length]`, and scores of the next, `[rows, vocabulary]`, to other scores."""
StopFunction: TypeAlias = Callable[[Tensor, Any], Any]
"""From tokens so far, `[rows, length]`, and the scores (None, unless they are returned), to whether rows end: a bool, or
`[rows]`."""


class SettingArguments(TypedDict, total=False):
    """The fields of `GenerationSpec`, which documents them; None is a setting that is not given."""

    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    stop_strings: str | Sequence[str] | None
    max_time: float | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    top_h: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    repetition_penalty: float | None
    encoder_repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: Sequence[Sequence[int]] | None
    sequence_bias: Sequence[tuple[Sequence[int], float]] | dict[tuple[int, ...], float] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    exponential_decay_length_penalty: tuple[int, float] | None
    renormalize_logits: bool | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    num_return_sequences: int | None
    prompt_lookup_num_tokens: int | None
    max_matching_ngram_size: int | None
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: Ids
    decoder_start_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: Ids
    output_scores: bool | None
    output_logits: bool | None


class GenerateArguments(SettingArguments, total=False):
    """All keyword arguments but `return_dict_in_generate`, which decides the type of the output."""

    generation_config: GenerationSpec | dict[str, Any] | Any
    seed: int | None
    decoder_input_ids: Int[Tensor, "batch prompt"] | None
    decoder_attention_mask: Tensor | None
    token_type_ids: Int[Tensor, "batch length"] | None
    pixel_values: Tensor | None
    encoder_outputs: EncoderOutputs
    use_cache: bool
    cache: Cache | None
    streamer: Callable[[Tensor], object] | None
    compile: bool
    tokenizer: Any
    logits_processor: ScoreFunction | Sequence[ScoreFunction] | None
    stopping_criteria: StopFunction | Sequence[StopFunction] | None
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None
