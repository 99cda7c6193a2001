"""What the stacks of a model read, made of the arguments of a call: masks, and where none is given padding; shifted tokens."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.modeling.segments import begins, places_in_segments
from pairform.assemblies.specs.model import ModelSpec, TokenSpec
from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class StackInputs:
    """One stack's inputs: token ids or embeddings, which of them are real, and where they stand.

    Args:
        valid: over cached and new tokens; False is padding.
        positions: what positional encodings count. None counts from the first real token of each row, or of each document in
            it, so that left padding (at places below zero) changes nothing.
        pixel_values: images whose embeddings replace the image tokens.
        segments: over cached and new tokens, the numbers of the documents packed in a row.
        prefix_lengths: how many tokens of each row, from its first real one on, see each other, where masks have a prefix.
        counted: False at new tokens that auxiliary losses leave out. Attention sees them, as in transformers: those whose label
            is ignored, where the tokens are the labels shifted right.
        prompt_length: image tokens after so many, counted with the cached ones, hold no image: the model generated them.
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

    def positions_from(self, offset: int, length: int, device: torch.device) -> Int[Tensor, "batch length"]:
        """The positions of `length` new tokens after `offset` cached ones."""
        if self.positions is not None:
            return self.positions
        if self.segments is not None:
            return places_in_segments(self.segments, self.valid)[:, offset:]
        positions = torch.arange(offset, offset + length, device=device)[None]
        return positions if self.valid is None else positions - self.valid.long().argmax(1, keepdim=True)

    def prefix(self, total: int) -> Bool[Tensor, "batch total"] | None:
        """True at the first `prefix_lengths` real tokens of each row."""
        if self.prefix_lengths is None:
            return None
        places = torch.arange(total, device=self.prefix_lengths.device)[None]
        first = 0 if self.valid is None else self.valid.long().argmax(1, keepdim=True)
        return (places >= first) & (places < first + self.prefix_lengths[:, None])


def as_mask(mask: Tensor | None) -> Bool[Tensor, "batch length"] | None:
    """A mask of integers or booleans as booleans, `[batch, length]`. One of floats, which may be additive, is an error."""
    if mask is None:
        return None
    if mask.ndim != 2 or mask.is_floating_point():
        found = f"{str(mask.dtype).removeprefix('torch.')} of the shape {tuple(mask.shape)}"
        raise InputError(Problem("attention_mask", found, "integers or booleans, [batch, length]"))
    return mask.bool()


def real_tokens(ids: Tensor | None, padding: int | None) -> Bool[Tensor, "batch length"] | None:
    """False where `ids` are `padding`; None without ids or without such a token."""
    return None if ids is None or padding is None else ids != padding


def mask_padding(inputs: StackInputs, padding: int | None) -> StackInputs:
    """Without a mask, tokens equal to `padding` are padding."""
    return inputs if inputs.valid is not None else replace(inputs, valid=real_tokens(inputs.ids, padding))


def shift_right(
    ids: Int[Tensor, "batch length"], tokens: TokenSpec, segments: Tensor | None = None
) -> Int[Tensor, "batch length"]:
    """`ids` one place later, after the start token of each row or segment; ignored labels become padding."""
    start, pad = tokens.first, tokens.pad
    if start is None or pad is None:
        raise InputError(Problem("tokens", "no bos (or start) or no pad token in the spec", "both, to shift tokens right"))
    shifted = torch.cat((torch.full_like(ids[:, :1], start), ids[:, :-1]), dim=1)
    if segments is not None:
        shifted = shifted.masked_fill(begins(segments), start)
    return shifted.masked_fill(shifted < 0, pad)


def decoder_inputs(
    spec: ModelSpec, written: StackInputs, read: StackInputs, labels: Tensor | None, padding: int | None
) -> StackInputs:
    """`written`, or without ids and embeddings the labels shifted right; for classification (as in T5 and T5Gemma) the source
    shifted right, whose `padding` is masked; the start token is not, even if it is the pad token."""
    if written.ids is not None or written.embeds is not None:
        return written
    if spec.head.name == "lm" and labels is not None:
        return replace(written, ids=shift_right(labels, spec.tokens, written.segments), counted=labels >= 0)
    if spec.head.name != "lm" and read.ids is not None:
        shifted = replace(written, ids=shift_right(read.ids, spec.tokens, written.segments))
        if written.valid is None and (real := real_tokens(read.ids, padding)) is not None:
            real = functional.pad(real[:, :-1], (1, 0), value=True)
            return replace(shifted, valid=real if written.segments is None else real | begins(written.segments))
        return shifted
    wanted = "decoder_input_ids, decoder_inputs_embeds" + (" or labels" if spec.head.name == "lm" else " or input_ids")
    raise InputError(Problem("decoder_input_ids", "nothing for the decoder to read", wanted))
