"""transformers' `generate` for models of pairform."""

from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from pairform.assemblies.generation.decoding import cacheable, turning_lengths
from pairform.assemblies.modeling.base import ModelParts
from pairform.interop.transformers.cache import PairformCache
from pairform.registry import InputError, Problem

ONE_CALL = ("greedy_search", "sample", "beam_search", "beam_sample")
"""Modes in which the first call of the decoder reads the prompt and nothing else."""


class PairformGenerationMixin(GenerationMixin):
    """`generate` with a cache of pairform's. transformers knows such classes by the end of this name."""

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, *arguments: Any, **named: Any
    ) -> None:
        """Put a cache into `model_kwargs`, unless none is wanted or the decoder cannot use one."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            found = repr(generation_config.cache_implementation)
            raise InputError(Problem("cache_implementation", found, "none: pairform's models have one kind of cache"))
        if has_prefix(self):
            options = {"use_cache": generation_config.use_cache, "prefill_chunk_size": generation_config.prefill_chunk_size}
            split = str(generation_mode.value) not in ONE_CALL or options["prefill_chunk_size"] is not None
            if split or not (options["use_cache"] and cacheable(model_of(self))):
                found = f"{generation_mode.value} with {options}, for a decoder that treats the prompt as a prefix"
                remedy = "pairform.load and its generate take such decoders without a cache."
                expected = "greedy search, sampling or beam search, which read the whole prompt at once, with a cache"
                raise InputError(Problem("generate", found, expected, remedy))
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache and cacheable(model_of(self)):
            model_kwargs["past_key_values"] = PairformCache()

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of a step: without those of the encoder, which has already run."""
        # transformers reads the name `kwargs` as: whatever `forward` takes
        pair = kwargs.get("encoder_outputs") is not None
        mask = kwargs.get("decoder_attention_mask" if pair else "attention_mask")
        past = kwargs.get("past_key_values")
        if past is not None and turns(self, past, input_ids, mask):  # all keys are rotated anew
            past.reset()
            next_sequence_length = None
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, next_sequence_length, **kwargs)
        if pair:
            for name in ("pixel_values", "token_type_ids"):
                inputs.pop(name, None)
        if has_prefix(self) and past is not None and not past.get_seq_length():
            inputs["prefix_lengths"] = (
                input_ids.new_full((len(input_ids),), input_ids.shape[1]) if mask is None else mask.sum(1)
            )
        return inputs


def model_of(model: Any) -> ModelParts:
    assert isinstance(model, ModelParts)
    return model


def has_prefix(model: Any) -> bool:
    decoder = model_of(model).decoder
    return decoder is not None and decoder.spec.prefixed


def turns(model: Any, past: PairformCache, tokens: Tensor, mask: Tensor | None) -> bool:
    """Whether these tokens are the first at whose length the rotation of earlier tokens is another."""
    begin = past.get_seq_length()
    first = None if mask is None or bool(mask.all()) else mask.shape[1] - mask.sum(1, keepdim=True)
    return begin > 0 and any(begin <= turn < tokens.shape[1] for turn in turning_lengths(model_of(model), first))
