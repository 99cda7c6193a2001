"""Writing tokens: greedy or sampled, with or without a cache."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.beam_search import BeamSearch
from pairform.assemblies.compiled_step import in_bucket
from pairform.assemblies.decoding import Decoding, cacheable
from pairform.assemblies.inputs import as_mask, real_tokens
from pairform.assemblies.sampling import Choose, chooser
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.registry import InputError, Problem

if TYPE_CHECKING:
    from pairform.assemblies.model import Model
    from pairform.assemblies.outputs import ModelOutput

Streamer = Callable[[Tensor], object]
"""Called with the new token of every row, `[batch]`, after each step."""


class GenerationMixin:
    """Adds `generate` to a model whose head is an LM head."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        *,
        max_new_tokens: int,
        do_sample: bool = False,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        decoder_input_ids: Int[Tensor, "batch prompt"] | None = None,
        decoder_attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        encoder_outputs: "Tensor | ModelOutput | None" = None,
        use_cache: bool = True,
        cache: Cache | None = None,
        streamer: Streamer | None = None,
        compile: bool = False,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        num_return_sequences: int = 1,
    ) -> Int[Tensor, "batch written"]:
        """The decoder's tokens: its prompt (the start token by default), then at most `max_new_tokens` more.

        A decoder-only model's prompt is `input_ids`. Rows end at any of `eos_token_id` (default: the spec's) and are then
        filled with pad; all stop when every row has ended. Prompts may be padded left or right. `cache` may hold the
        beginning of the prompt from an earlier call; it holds all but the last token afterwards. The same `seed` draws
        the same tokens. A decoder whose tokens see later ones keeps nothing, whatever `use_cache` says. `compile` compiles the
        step of one token when it is first needed, and again only for buckets of lengths and batches that this model
        has not met; it pays where much is written.

        With `num_beams`, beam search as in transformers: see `BeamSearch` for its options. It gives
        `batch * num_return_sequences` rows, those of one input together, best first; a `cache` then holds the prompt alone.
        """
        model = cast("Model", self)
        choose = chooser(do_sample, temperature, top_k, top_p, seed, next(model.parameters()).device)
        ends = model.spec.tokens.ends if eos_token_id is None else as_ids(eos_token_id)
        check_request(model, max_new_tokens, use_cache, cache)
        search = BeamSearch(num_beams, length_penalty, early_stopping, num_return_sequences)
        check_beams(num_beams, do_sample=do_sample, streamer=streamer)
        mode = model.training
        model.eval()
        try:
            if model.encoder is None:
                source, prompt, mask, pixels = None, input_ids, attention_mask, pixel_values
            else:
                source = encode(model, input_ids, attention_mask, pixel_values, encoder_outputs)
                prompt, mask, pixels = decoder_input_ids, decoder_attention_mask, None
            prompt, valid = starting_point(model, prompt, mask, source)
            warn_if_long(model, prompt.shape[1] + max_new_tokens)
            aligned, first = prompt, None
            if valid is not None:
                order = valid.long().argsort(dim=1, stable=True)  # padding to the left, so that rows go on at the right
                aligned, first = prompt.gather(1, order), (~valid).sum(1, keepdim=True)
            if cache is None and use_cache and cacheable(model):
                cache = Cache()
            if compile and source is not None:
                source = in_bucket(source)
            longest = prompt.shape[1] + max_new_tokens
            decoding = Decoding(model, source, cache, first, length=longest, compile=compile)
            filler = model.spec.tokens.pad if model.spec.tokens.pad is not None else (ends[0] if ends else 0)
            if num_beams > 1:
                new, _ = search(decoding, aligned, pixels, torch.tensor(ends, device=prompt.device), filler, max_new_tokens)
                written = torch.cat((prompt.repeat_interleave(num_return_sequences, 0), new), dim=1)
            else:
                written = write(decoding, prompt, aligned, pixels, choose, ends, filler, max_new_tokens, streamer)
        finally:
            model.train(mode)
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
    for end in range(length, length + max_new_tokens):
        logits = decoding(running[:, :end], pixels)
        pixels = pixels if decoding.cache is None else None
        token = choose(logits)
        if ends:
            token = token.masked_fill(finished, filler)
        running[:, end] = token
        if streamer is not None:
            streamer(token)
        if ends:
            finished |= torch.isin(token, end_ids)
            if finished.all():
                break
    return torch.cat((prompt, running[:, length : end + 1]), dim=1)


def check_request(model: "Model", max_new_tokens: int, use_cache: bool, cache: Cache | None) -> None:
    """Refuse what cannot be generated."""
    if model.decoder is None or model.spec.head.name != "lm":
        found = f"a {model.spec.assembly} model with the head {model.spec.head.name!r}"
        raise InputError(Problem("model", found, "a decoder with an LM head"))
    if max_new_tokens < 1:
        raise InputError(Problem("max_new_tokens", str(max_new_tokens), "1 or more"))
    if cache is not None and not use_cache:
        raise InputError(Problem("cache", "a cache with use_cache=False", "one or the other"))
    if cache is not None and not cacheable(model):
        found = "a decoder whose tokens see later ones, so that all is computed anew with each"
        raise InputError(Problem("cache", found, "no cache, or a causal mask"))


def check_beams(num_beams: int, **given: object) -> None:
    """Refuse what beams cannot do."""
    if num_beams > 1 and (unable := [name for name, value in given.items() if value]):
        raise InputError(Problem(unable[0], f"{unable[0]} beside num_beams={num_beams}", "one or the other"))


def encode(
    model: "Model", ids: Tensor | None, mask: Tensor | None, pixels: Tensor | None, outputs: "Tensor | ModelOutput | None"
) -> Source:
    """The source that the decoder reads, run through the encoder unless its output is given."""
    assert model.encoder is not None
    valid = as_mask(mask)
    if valid is None:
        valid = real_tokens(ids, model.spec.tokens)
    if outputs is not None:
        ran = model.encoder_output(outputs)
    else:
        ran = model.encoder(ids, pixel_values=pixels, valid=valid, layers=model.source_layers)
    return model.source(ran.hidden, valid, layers=ran.layers)


def starting_point(
    model: "Model", prompt: Tensor | None, mask: Tensor | None, source: Source | None
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
        valid = real_tokens(prompt, model.spec.tokens)
    return prompt, None if valid is None or bool(valid.all()) else valid


def warn_if_long(model: "Model", length: int) -> None:
    """Say so when a decoder will see more tokens than it was trained for."""
    longest = None if model.spec.decoder is None else model.spec.decoder.max_length
    if longest is not None and length > longest:
        warnings.warn(f"{length} tokens are more than the decoder's max_length of {longest}", stacklevel=3)


def as_ids(ids: int | Sequence[int]) -> tuple[int, ...]:
    return (ids,) if isinstance(ids, int) else tuple(ids)
