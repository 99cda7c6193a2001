"""What the stacks of a model read, made of the arguments of a call: masks, and where none is given padding; shifted tokens."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.modeling.segments import begins
from pairform.assemblies.specs.model import ModelSpec, TokenSpec
from pairform.registry import InputError, Problem

if TYPE_CHECKING:
    from pairform.assemblies.modeling.stack import Stack, StackOutput


@dataclass(frozen=True)
class Inputs:
    """One stack's inputs: tokens or embeddings, which of them are real, and where they stand.

    counted: False at places whose label is ignored, where the tokens are the labels shifted right: attention sees them, as in
             transformers, and auxiliary losses do not count them.
    """

    ids: Int[Tensor, "batch length"] | None = None
    embeds: Float[Tensor, "batch length width"] | None = None
    valid: Bool[Tensor, "batch total_length"] | None = None
    positions: Int[Tensor, "batch length"] | None = None
    pixels: Float[Tensor, "pictures channels height width"] | None = None
    segments: Int[Tensor, "batch total_length"] | None = None
    prefix: Int[Tensor, " batch"] | None = None
    counted: Bool[Tensor, "batch length"] | None = None


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


def mask_padding(inputs: Inputs, padding: int | None) -> Inputs:
    """Without a mask, tokens equal to `padding` are padding."""
    return inputs if inputs.valid is not None else replace(inputs, valid=real_tokens(inputs.ids, padding))


def shift_right(
    ids: Int[Tensor, "batch length"], tokens: TokenSpec, segments: Tensor | None = None
) -> Int[Tensor, "batch length"]:
    """`ids` one place later, behind the start token of each row or segment; ignored labels become padding."""
    start, pad = tokens.first, tokens.pad
    if start is None or pad is None:
        raise InputError(Problem("tokens", "no bos (or start) or no pad token in the spec", "both, to shift tokens right"))
    shifted = torch.cat((torch.full_like(ids[:, :1], start), ids[:, :-1]), dim=1)
    if segments is not None:
        shifted = shifted.masked_fill(begins(segments), start)
    return shifted.masked_fill(shifted < 0, pad)


def run(stack: "Stack", inputs: Inputs, **rest: Any) -> "StackOutput":
    ran: StackOutput = stack(
        inputs.ids,
        inputs.embeds,
        pixel_values=inputs.pixels,
        valid=inputs.valid,
        segments=inputs.segments,
        positions=inputs.positions,
        prefix_lengths=inputs.prefix,
        counted=inputs.counted,
        **rest,
    )
    return ran


def derive_decoder_inputs(spec: ModelSpec, written: Inputs, read: Inputs, labels: Tensor | None, padding: int | None) -> Inputs:
    """The labels shifted right, or for classification (as in T5 and T5Gemma) the source shifted right, whose `padding` is
    masked; the start token is not, even if it is the pad token."""
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
