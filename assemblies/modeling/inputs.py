"""The inputs of stacks, prepared from the arguments of a call: padding masks, shifted tokens, packed rows and prefixes.

A packed row holds several documents, numbered by `segment_ids`, that do not attend to each other.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.specs.model import ModelSpec, TokenSpec
from pairform.blocks.cache import Cache
from pairform.blocks.context import begins, document_numbers
from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class StackInputs:
    """The inputs of one stack: token IDs or embeddings, their mask and their positions.

    Args:
        valid: over cached and new tokens; False is padding.
        positions: for positional encodings. None counts from the first token of each row, or of each document in it, that is
            not padding, so that left padding (at negative positions) changes nothing.
        pixel_values: images whose embeddings replace the image tokens.
        segments: over cached and new tokens, the numbers of the documents packed in a row.
        prefix_lengths: the number of tokens of each row, from the first that is not padding, that attend to each other if masks
            have a prefix.
        counted: False at new tokens that auxiliary losses ignore: those with an ignored label, if the tokens are the labels
            shifted right. Others attend to them nevertheless, as in transformers.
        token_types: of the new tokens, for a stack with token types; None: all 0.
        prompt_length: image tokens after this many tokens, cached ones included, stand for no image: the model generated them.
    """

    ids: Int[Tensor, "batch length"] | None = None
    embeds: Float[Tensor, "batch length width"] | None = None
    valid: Bool[Tensor, "batch total_length"] | None = None
    positions: Int[Tensor, "batch length"] | None = None
    pixel_values: Float[Tensor, "images channels height width"] | None = None
    segments: Int[Tensor, "batch total_length"] | None = None
    prefix_lengths: Int[Tensor, " batch"] | None = None
    counted: Bool[Tensor, "batch length"] | None = None
    prompt_length: int | None = None
    token_types: Int[Tensor, "batch length"] | None = None

    def positions_from(self, offset: int, length: int, device: torch.device) -> Int[Tensor, "batch length"]:
        """The positions of `length` new tokens after `offset` cached ones."""
        if self.positions is not None:
            return self.positions
        if self.segments is not None:
            return places_in_segments(self.segments, self.valid)[:, offset:]
        positions = torch.arange(offset, offset + length, device=device)[None]
        # argmax finds the first True: the first token that is not padding
        return positions if self.valid is None else positions - self.valid.long().argmax(1, keepdim=True)

    def prefix(self, total: int) -> Bool[Tensor, "batch total"] | None:
        """True at the first `prefix_lengths` tokens of each row that are not padding."""
        if self.prefix_lengths is None:
            return None
        places = torch.arange(total, device=self.prefix_lengths.device)[None]
        first = 0 if self.valid is None else self.valid.long().argmax(1, keepdim=True)
        return (places >= first) & (places < first + self.prefix_lengths[:, None])


def as_mask(mask: Tensor | None) -> Bool[Tensor, "batch length"] | None:
    """An integer or boolean mask as booleans, `[batch, length]`.

    Raises:
        InputError: another shape, or floats, which might be an additive mask.
    """
    if mask is None:
        return None
    if mask.ndim != 2 or mask.is_floating_point():
        found = f"{str(mask.dtype).removeprefix('torch.')} of the shape {tuple(mask.shape)}"
        raise InputError(Problem("attention_mask", found, "integers or booleans, [batch, length]"))
    return mask.bool()


def real_tokens(ids: Tensor | None, padding: int | None) -> Bool[Tensor, "batch length"] | None:
    """False where `ids` equal `padding`; None without IDs or without a padding token."""
    return None if ids is None or padding is None else ids != padding


def mask_padding(inputs: StackInputs, padding: int | None) -> StackInputs:
    """`inputs` with a mask: if they have none, tokens equal to `padding` are masked."""
    return inputs if inputs.valid is not None else replace(inputs, valid=real_tokens(inputs.ids, padding))


def shift_right(
    ids: Int[Tensor, "batch length"], tokens: TokenSpec, segments: Tensor | None = None
) -> Int[Tensor, "batch length"]:
    """`ids` shifted right by one, after the start token of each row or segment; ignored labels become padding.

    With `tokens.wrap` the last token of the row or segment that is not padding takes the place of the start token.

    Raises:
        InputError: the spec has no start token or no padding token.
    """
    start, pad = tokens.first, tokens.pad
    if (start is None and not tokens.wrap) or pad is None:
        raise InputError(Problem("tokens", "no bos (or start) or no pad token in the spec", "both, to shift tokens right"))
    # [batch, length], the same for all tokens of a row or segment
    starts = last_tokens(ids, pad, segments) if tokens.wrap else torch.full_like(ids, start or 0)
    shifted = torch.cat((starts[:, :1], ids[:, :-1]), dim=1)
    if segments is not None:
        # or a document would begin with the last token of the one before
        shifted = torch.where(begins(segments), starts, shifted)
    return shifted.masked_fill(shifted < 0, pad)


def last_tokens(
    ids: Int[Tensor, "batch length"], pad: int, segments: Int[Tensor, "batch length"] | None
) -> Int[Tensor, "batch length"]:
    """At each token the last one of its row or segment that is neither `pad` nor an ignored label; else its first."""
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    document = torch.zeros_like(places) if segments is None else document_numbers(segments)
    first = torch.zeros_like(places).scatter_reduce(1, document, places, "amin", include_self=False)
    real = torch.where((ids >= 0) & (ids != pad), places, first.gather(1, document))
    last = torch.zeros_like(places).scatter_reduce(1, document, real, "amax", include_self=False)
    return ids.gather(1, last.gather(1, document))


def decoder_inputs(
    spec: ModelSpec, target: StackInputs, source: StackInputs, labels: Tensor | None, padding: int | None
) -> StackInputs:
    """The decoder's inputs: `target`, or if it has neither IDs nor embeddings the labels shifted right. For classification (as
    in T5 and T5Gemma) the source shifted right, with its `padding` masked, but not a start token that is the pad token.

    Raises:
        InputError: there is nothing for the decoder to read.
    """
    if target.ids is not None or target.embeds is not None:
        return target
    if spec.head.name == "lm" and labels is not None:
        return replace(target, ids=shift_right(labels, spec.tokens, target.segments), counted=labels >= 0)
    if spec.head.name != "lm" and source.ids is not None:
        shifted = replace(target, ids=shift_right(source.ids, spec.tokens, target.segments))
        if target.valid is None and (real := real_tokens(source.ids, padding)) is not None:
            real = functional.pad(real[:, :-1], (1, 0), value=True)
            return replace(shifted, valid=real if target.segments is None else real | begins(target.segments))
        return shifted
    expected = "decoder_input_ids, decoder_inputs_embeds" + (" or labels" if spec.head.name == "lm" else " or input_ids")
    raise InputError(Problem("decoder_input_ids", "nothing for the decoder to read", expected))


def check_packing(
    spec: ModelSpec, source: Tensor | None, target: Tensor | None, prefix_lengths: Tensor | None, cache: Cache | None
) -> None:
    """Raise `InputError` for segment IDs or prefix lengths that do not fit the model.

    An encoder-decoder takes segment IDs in both stacks (`source`, `target`) or in none.
    """
    for argument, ids in (("segment_ids", source), ("decoder_segment_ids", target)):
        if ids is not None and (ids.ndim != 2 or ids.is_floating_point()):
            found = f"{str(ids.dtype).removeprefix('torch.')} of the shape {tuple(ids.shape)}"
            raise InputError(Problem(argument, found, "whole numbers, [batch, length]"))
    both = spec.encoder is not None and spec.decoder is not None
    if (target is not None) if not both else (source is None) != (target is None):
        found = f"segment_ids {'absent' if source is None else 'given'}, this {'absent' if target is None else 'given'}"
        raise InputError(Problem("decoder_segment_ids", found, "both for an encoder-decoder, else segment_ids alone"))
    if source is not None and spec.head.pools:
        raise InputError(Problem("segment_ids", "packed rows for a head with one output per row", "one document per row"))
    if prefix_lengths is not None:
        check_prefix(spec, prefix_lengths, cache, source)


def check_prefix(spec: ModelSpec, lengths: Tensor, cache: Cache | None, segments: Tensor | None) -> None:
    """Raise `InputError` for prefix lengths that the decoder would ignore or could not apply."""
    problem = None
    if spec.decoder is None or not spec.decoder.prefixed:
        problem = Problem("prefix_lengths", "a prefix for a model that reads none", "a decoder with `prefix` in a mask")
    elif lengths.ndim != 1 or lengths.is_floating_point():
        found = f"{str(lengths.dtype).removeprefix('torch.')} of the shape {tuple(lengths.shape)}"
        problem = Problem("prefix_lengths", found, "whole numbers, [batch]")
    elif segments is not None:
        problem = Problem("prefix_lengths", "a prefix in packed rows", "one document per row")
    elif cache is not None and cache.length:
        problem = Problem("prefix_lengths", f"a prefix after {cache.length} cached tokens", "the prefix in the first call")
    if problem is not None:
        raise InputError(problem)


def places_in_segments(
    segments: Int[Tensor, "batch length"], valid: Bool[Tensor, "batch length"] | None
) -> Int[Tensor, "batch length"]:
    """The position of each token in its document, counted from the first that is not padding."""
    places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    document = document_numbers(segments)
    # padding gets a position after all others, so that the minimum is a document's first real token
    real = places if valid is None else places.masked_fill(~valid, segments.shape[1])
    first = torch.full_like(places, segments.shape[1]).scatter_reduce(1, document, real, "amin")
    return places - first.gather(1, document)
