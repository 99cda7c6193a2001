"""Masks as numbers and tensors, the only argument types of a custom operator, and back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern

TENSORS = ("valid", "blocks", "query_segments", "key_segments")
"""Fields of a mask, `[batch, ...]` or None."""
# four positions and lengths, two window sides, three flags
WIDTH = 9
"""The number of integers per mask, apart from one flag for each of `TENSORS`."""


def pack(mask: JoinedMask) -> tuple[list[int], list[Tensor]]:
    """The integers of all parts, with flags for the tensors that each part has, and these tensors."""
    numbers: list[int] = []
    tensors: list[Tensor] = []
    for part in mask.parts:
        # -1 stands for no window, since the list holds integers only
        left, right = part.pattern.window or (-1, -1)
        held = held_by(part)
        numbers += [part.query_start, part.query_length, part.key_start, part.key_length, left, right]
        numbers += [int(part.pattern.causal), int(part.pattern.prefix), int(part.reads == "source")]
        numbers += [int(tensor is not None) for tensor in held]
        tensors += [tensor for tensor in held if tensor is not None]
    return numbers, tensors


def unpack(numbers: Sequence[int], tensors: Sequence[Tensor]) -> JoinedMask:
    """The inverse of `pack`."""
    parts = []
    rest = iter(tensors)
    for begin in range(0, len(numbers), WIDTH + len(TENSORS)):
        places, (left, right, causal, prefix, source) = numbers[begin : begin + 4], numbers[begin + 4 : begin + WIDTH]
        present = numbers[begin + WIDTH : begin + WIDTH + len(TENSORS)]
        pattern = MaskPattern(bool(causal), None if left < 0 else (left, right), bool(prefix))
        bare = Mask(pattern, places[0], places[1], places[2], places[3], reads="source" if source else "own")
        parts.append(holding(bare, [next(rest) if there else None for there in present]))
    return JoinedMask(tuple(parts))


def of_row(mask: JoinedMask, row: int) -> JoinedMask:
    """The mask of one row of the batch. On a CPU, a row without padding gets no padding mask; elsewhere the check would need a
    synchronisation."""
    parts = []
    for part in mask.parts:
        valid, *rest = (None if tensor is None else tensor[row : row + 1] for tensor in held_by(part))
        whole = valid is not None and valid.device.type == "cpu" and bool(valid.all())
        parts.append(holding(part, [None if whole else valid, *rest]))
    return JoinedMask(tuple(parts))


def held_by(mask: Mask) -> list[Tensor | None]:
    """The fields `TENSORS` of a mask, `[batch, ...]` each."""
    return [getattr(mask, name) for name in TENSORS]


def holding(mask: Mask, tensors: Sequence[Tensor | None]) -> Mask:
    """`mask` with its fields `TENSORS` replaced."""
    fields: dict[str, Any] = dict(zip(TENSORS, tensors, strict=True))
    return replace(mask, **fields)
