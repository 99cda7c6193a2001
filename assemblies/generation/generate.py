"""Generation: greedy decoding, sampling or beam search, with or without a cache."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.compiled_step import in_bucket
from pairform.assemblies.generation.decoding import Decoding, Finite, cacheable
from pairform.assemblies.generation.options import GenerationOptions, ResolvedOptions, Streamer
from pairform.assemblies.modeling.checks.caches import check_same_beginning
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, mask_padding, real_tokens
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.outputs import EncoderOutputs, kept_mask, kept_output
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.registry import InputError, Problem


@torch.no_grad()
def generate(
    model: Model,
    options: GenerationOptions,
    inputs: StackInputs,
    decoder_input_ids: Int[Tensor, "batch prompt"] | None,
    decoder_attention_mask: Tensor | None,
    encoder_outputs: EncoderOutputs,
    cache: Cache | None,
) -> Int[Tensor, "batch total_length"]:
    """`Model.generate`, which documents the arguments. `inputs` are the encoder's, or the prompt of a decoder-only model."""
    resolved = options.checked(model, cache)
    # a pad token that also ends sequences may be an ordinary part of the input, so it is not masked by default; the padding of
    # an encoder with special tokens of its own has nothing to do with the decoder's end tokens
    own_tokens = model.encoder is not None and model.encoder.spec.tokens is not None
    padding = None if model.padding in resolved.ends and not own_tokens else model.padding
    with evaluating(model):
        # the source, and the tokens that the decoder begins with
        source, images = None, inputs.pixel_values
        prompt, mask = inputs.ids, inputs.valid
        if model.encoder is not None:
            source = encode(model, inputs, encoder_outputs, cache, padding)
            prompt, mask, images = decoder_input_ids, decoder_attention_mask, None
        prompt, valid = starting_point(model, prompt, mask, source, padding)
        longest = prompt.shape[1] + resolved.max_new_tokens
        warn_if_long(model, longest)
        aligned, valid = padded_left(prompt, valid)
        if cache is not None:
            check_same_beginning(model, cache, aligned, valid)
        elif options.use_cache and cacheable(model):
            cache = Cache()
        if options.compile and source is not None:  # sources of other lengths in the bucket share the compiled step
            source = in_bucket(source)
        # with all padding on the left, its length is the place of the first real token
        first = None if valid is None else (~valid).sum(1, keepdim=True)
        decoding = Decoding(model, source, cache, first, length=longest, compile=options.compile)
        # the loop over new tokens
        if resolved.search is None:
            new = sample(decoding, aligned, images, resolved, options.streamer)
        else:
            ends = torch.tensor(resolved.ends, device=prompt.device)
            new, _ = resolved.search(decoding, aligned, images, ends, resolved.filler, resolved.forced)
            prompt = prompt.repeat_interleave(options.num_return_sequences, 0)
            if cache is not None:
                cache.tokens = aligned
        # the prompt as it was given, with padding where it was
        return torch.cat((prompt, new), dim=1)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Eval mode for all modules; afterwards each one's previous mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def padded_left(
    prompt: Int[Tensor, "batch prompt"], valid: Bool[Tensor, "batch prompt"] | None
) -> tuple[Int[Tensor, "batch prompt"], Bool[Tensor, "batch prompt"] | None]:
    """The prompt with its padding moved to the left, so that all rows grow on the right."""
    if valid is None:
        return prompt, None
    # padding, False, sorts first; the stable sort keeps the tokens in order
    order = valid.long().argsort(dim=1, stable=True)
    return prompt.gather(1, order), valid.gather(1, order)


def sample(
    decoding: Decoding,
    prompt: Int[Tensor, "batch prompt"],
    images: Tensor | None,
    resolved: ResolvedOptions,
    streamer: Streamer | None,
) -> Int[Tensor, "batch new"]:
    """The loop of greedy decoding and sampling: compute logits and choose tokens until every row has ended.

    Returns the generated tokens; a row that has ended is filled with `resolved.filler`.
    """
    length = prompt.shape[1]
    running = functional.pad(prompt, (0, resolved.max_new_tokens), value=resolved.filler)
    end_ids = torch.tensor(resolved.ends, device=prompt.device, dtype=prompt.dtype)
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    finite = Finite(prompt.device)
    for end in range(length, length + resolved.max_new_tokens):
        logits = decoding(running[:, :end], images)
        images = images if decoding.cache is None else None  # cached with the prompt; without a cache needed again
        token, best = resolved.choose(resolved.forced(logits, length, end - length))
        finite.add(best)
        if resolved.ends:
            token = token.masked_fill(finished, resolved.filler)
        running[:, end] = token
        if streamer is not None:
            streamer(token)
        if resolved.ends:
            finished |= torch.isin(token, end_ids)
            if decoding.stops(finished):
                break
    finite.check()
    if decoding.cache is not None:
        decoding.cache.tokens = running[:, : decoding.cache.length].clone()
    return running[:, length : end + 1]


def encode(model: Model, inputs: StackInputs, outputs: EncoderOutputs, cache: Cache | None, padding: int | None) -> Source:
    """The source of the decoder: the encoder's output, computed unless it is given, after the bridge."""
    assert model.encoder is not None
    inputs = mask_padding(replace(inputs, valid=kept_mask(outputs, inputs.valid)), padding)
    if outputs is not None:
        encoded = kept_output(outputs, model.source_layers)
    else:
        encoded = model.encoder(inputs, layers=model.source_layers)
    return model.decoder_source(encoded, inputs, cache)


def starting_point(
    model: Model, prompt: Tensor | None, mask: Tensor | None, source: Source | None, padding: int | None
) -> tuple[Tensor, Tensor | None]:
    """The prompt of the decoder and its mask, False at padding (None: there is no padding).

    Raises:
        InputError: there is neither a prompt nor a start token.
    """
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


def warn_if_long(model: Model, length: int) -> None:
    """Warn if the sequence may become longer than the decoder's `max_length`."""
    longest = None if model.spec.decoder is None else model.spec.decoder.max_length
    if longest is not None and length > longest:
        warnings.warn(f"{length} tokens are more than the decoder's max_length of {longest}", stacklevel=6)
