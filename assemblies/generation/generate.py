"""Writing tokens: greedy or sampled, with or without a cache."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.beam_search import BeamSearch
from pairform.assemblies.generation.compiled_step import in_bucket
from pairform.assemblies.generation.decoding import Decoding, Finite, cacheable
from pairform.assemblies.generation.options import LONGEST, check_options, end_tokens
from pairform.assemblies.generation.sampling import Choose, chooser
from pairform.assemblies.modeling.checks.arguments import integer
from pairform.assemblies.modeling.checks.caches import check_same_beginning, check_same_source
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, real_tokens
from pairform.assemblies.modeling.interface import ModelInterface
from pairform.assemblies.modeling.outputs import EncoderOutputs, kept_mask, kept_output
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.registry import InputError, Problem

Streamer = Callable[[Tensor], object]
"""Called with the new token of every row, `[batch]`, after each step."""


@torch.no_grad()
def generate(
    model: ModelInterface,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    *,
    max_new_tokens: int,
    do_sample: bool,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    eos_token_id: int | Sequence[int] | None,
    decoder_input_ids: Tensor | None,
    decoder_attention_mask: Tensor | None,
    pixel_values: Tensor | None,
    encoder_outputs: EncoderOutputs,
    use_cache: bool,
    cache: Cache | None,
    streamer: Streamer | None,
    compile: bool,
    num_beams: int,
    length_penalty: float,
    early_stopping: bool | Literal["never"],
    num_return_sequences: int,
) -> Int[Tensor, "batch written"]:
    """`Model.generate`, whose arguments it takes."""
    assert model.spec.decoder is not None, "checked at the door"
    vocabulary = model.spec.vocabulary_of("decoder")
    max_new_tokens = integer("max_new_tokens", max_new_tokens, 1, LONGEST)
    ends = model.spec.tokens.ends if eos_token_id is None else end_tokens(eos_token_id, vocabulary)
    own = model.spec.encoder is not None and model.spec.encoder.tokens is not None  # other ids than those that end text
    padding = None if model.padding in ends and not own else model.padding
    search = BeamSearch(num_beams, length_penalty, early_stopping, num_return_sequences)
    search.check_size(vocabulary, max_new_tokens)
    flags = {"use_cache": use_cache, "do_sample": do_sample, "compile": compile}
    check_options(model, cache, streamer, num_beams, **flags)
    choose = chooser(do_sample, temperature, top_k, top_p, seed, next(model.parameters()).device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        if model.encoder is None:
            source, prompt, mask, pixels = None, input_ids, attention_mask, pixel_values
        else:
            source = encode(model, input_ids, attention_mask, pixel_values, encoder_outputs, cache, padding)
            prompt, mask, pixels = decoder_input_ids, decoder_attention_mask, None
        prompt, valid = starting_point(model, prompt, mask, source, padding)
        warn_if_long(model, prompt.shape[1] + max_new_tokens)
        aligned, first = prompt, None
        if valid is not None:
            order = valid.long().argsort(dim=1, stable=True)  # padding to the left, so that rows go on at the right
            aligned, first = prompt.gather(1, order), (~valid).sum(1, keepdim=True)
        if cache is not None:
            check_same_beginning(model, cache, aligned, valid if valid is None else valid.gather(1, order))
        elif use_cache and cacheable(model):
            cache = Cache()
        if compile and source is not None:
            source = in_bucket(source)
        longest = prompt.shape[1] + max_new_tokens
        decoding = Decoding(model, source, cache, first, length=longest, compile=compile)
        filler = model.spec.tokens.pad if model.spec.tokens.pad is not None else (ends[0] if ends else 0)
        if num_beams > 1:
            new, _ = search(decoding, aligned, pixels, torch.tensor(ends, device=prompt.device), filler, max_new_tokens)
            written = torch.cat((prompt.repeat_interleave(num_return_sequences, 0), new), dim=1)
            if cache is not None:
                cache.tokens = aligned
        else:
            written = write(decoding, prompt, aligned, pixels, choose, ends, filler, max_new_tokens, streamer)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return written


def write(
    decoding: Decoding,
    prompt: Int[Tensor, "batch prompt"],
    aligned: Int[Tensor, "batch prompt"],
    pixels: Tensor | None,
    choose: Choose,
    ends: tuple[int, ...],
    filler: int,
    max_new_tokens: int,
    streamer: Streamer | None,
) -> Int[Tensor, "batch written"]:
    """The loop: run the tokens that the cache does not hold yet, choose the next ones, until every row has ended."""
    length = prompt.shape[1]
    running = functional.pad(aligned, (0, max_new_tokens), value=filler)
    end_ids = torch.tensor(ends, device=prompt.device, dtype=prompt.dtype)
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    finite = Finite(prompt.device)
    for end in range(length, length + max_new_tokens):
        logits = decoding(running[:, :end], pixels)
        pixels = pixels if decoding.cache is None else None
        token, best = choose(logits)
        finite.see(best)
        if ends:
            token = token.masked_fill(finished, filler)
        running[:, end] = token
        if streamer is not None:
            streamer(token)
        if ends:
            finished |= torch.isin(token, end_ids)
            if finished.all():
                break
    finite.check()
    if decoding.cache is not None:
        decoding.cache.tokens = running[:, : decoding.cache.length].clone()
    return torch.cat((prompt, running[:, length : end + 1]), dim=1)


def encode(
    model: ModelInterface,
    ids: Tensor | None,
    mask: Tensor | None,
    pixels: Tensor | None,
    outputs: EncoderOutputs,
    cache: Cache | None,
    padding: int | None,
) -> Source:
    """The source that the decoder reads, run through the encoder unless its output is given."""
    assert model.encoder is not None
    valid = kept_mask(outputs, as_mask(mask))
    if valid is None:
        valid = real_tokens(ids, padding)
    if outputs is not None:
        ran = kept_output(outputs, model.source_layers)
    else:
        ran = model.encoder(StackInputs(ids, valid=valid, pixel_values=pixels), layers=model.source_layers)
    if cache is not None:
        check_same_source(model, cache, ran.hidden)
    return model.source(ran.hidden, valid, layers=ran.layers)


def starting_point(
    model: ModelInterface, prompt: Tensor | None, mask: Tensor | None, source: Source | None, padding: int | None
) -> tuple[Tensor, Tensor | None]:
    """The decoder's first tokens, and which of them are real (None: all)."""
    tokens = model.spec.tokens
    if prompt is None:
        if source is None or tokens.first is None:
            raise InputError(
                Problem("input_ids", "no tokens to start from", "input_ids, or a bos (or start) token in the spec")
            )
        return torch.full((len(source.hidden), 1), tokens.first, device=source.hidden.device), None
    valid = as_mask(mask)
    if valid is None and source is None:
        valid = real_tokens(prompt, padding)
    return prompt, None if valid is None or bool(valid.all()) else valid


def warn_if_long(model: ModelInterface, length: int) -> None:
    """Say so when a decoder will see more tokens than it was trained for."""
    longest = None if model.spec.decoder is None else model.spec.decoder.max_length
    if longest is not None and length > longest:
        warnings.warn(f"{length} tokens are more than the decoder's max_length of {longest}", stacklevel=3)
