"""Attention masks as small values, which each kernel converts to the form that it needs."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.context import Reads

T = TypeVar("T")


class MaskPattern(NamedTuple):
    """The part of a mask that an architecture fixes, as plain values: see `MaskSpec`."""

    causal: bool = False
    window: tuple[int, int] | None = None
    prefix: bool = False


FULL = MaskPattern()
"""Every query attends to every key."""


@dataclass(frozen=True)
class Mask:
    """The mask of one attention call over the keys of one sequence.

    query_start, key_start: positions of the first query and of the first key in the sequence.
    valid:  False at keys that are padding; None: no key is.
    reads:  the sequence of the keys. Causality and windows apply only within the queries' own.
    blocks: a number for each run of tokens that attend to each other despite causality (the tokens of an image, or a prefix),
            -1 elsewhere. A window limits them on the left, and with a prefix also on the right.
    query_segments, key_segments: numbers of the documents packed in one row; a query attends only to keys of its own document.
    """

    pattern: MaskPattern
    query_start: int
    query_length: int
    key_start: int
    key_length: int
    valid: Bool[Tensor, "batch key_length"] | None = None
    reads: Reads = "own"
    blocks: Int[Tensor, "batch total_length"] | None = None
    query_segments: Int[Tensor, "batch query_length"] | None = None
    key_segments: Int[Tensor, "batch key_length"] | None = None

    @property
    def padded(self) -> bool:
        """Whether padding or packing may leave some query fully masked."""
        return self.valid is not None or self.key_segments is not None

    @property
    def window(self) -> tuple[int | None, int | None]:
        """How many tokens to its left and right a query attends to by the pattern; None is all."""
        left, right = self.pattern.window or (None, None)
        return left, 0 if self.pattern.causal else right

    @property
    def ahead(self) -> int | None:
        """How many tokens to its right a query attends to within its block; None is all."""
        return self.pattern.window[1] if self.pattern.prefix and self.pattern.window is not None else None

    @property
    def place(self) -> tuple[int, int, int] | None:
        """What the mask of this pattern depends on; None if on the tokens, too."""
        if self.padded or self.blocks is not None:
            return None
        return self.query_start - self.key_start, self.query_length, self.key_length

    def rows(self, begin: int, end: int) -> "Mask":
        """The mask of queries `begin` to `end` on all keys."""
        segments = None if self.query_segments is None else self.query_segments[:, begin:end]
        return replace(self, query_start=self.query_start + begin, query_length=end - begin, query_segments=segments)

    def seen_by(self, count: int) -> int:
        """The most keys that `count` consecutive queries attend to together."""
        left, right = self.window
        # causality does not limit a query within its block
        right = right if self.blocks is None else self.ahead
        return self.key_length if left is None or right is None else min(self.key_length, count + left + right)

    def interval(self, device: torch.device) -> tuple[Int[Tensor, "rows queries"], Int[Tensor, "rows queries"]]:
        """The indices of the first and the last key that each query may attend to by causality, window and blocks, without
        padding and packing. One row if all rows are the same.
        """
        queries = torch.arange(self.query_start, self.query_start + self.query_length, device=device)[None]
        left, right = self.window
        left = self.query_start + self.query_length if left is None else left  # far enough to include all
        right = self.key_start + self.key_length if right is None else right
        most = self.key_length - 1
        low, high = (queries - left - self.key_start).clamp(min=0), (queries + right - self.key_start).clamp(max=most)
        if self.blocks is not None:  # a query attends at least to the end of its own block
            last = last_of_run(self.blocks)[:, queries[0]]
            last = last if self.ahead is None else torch.minimum(last, queries + self.ahead)
            high = torch.maximum(high, last - self.key_start).clamp(max=most)
        return low, high

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 queries key_length"] | None:
        """True where a query may attend; None if nothing is masked. One row of queries if only padding masks keys; a batch of
        one if neither padding nor packing does.
        """
        left, right = self.window
        if not self.padded and not torch.compiler.is_exporting():  # one program for lengths within the window and beyond
            before = self.query_start + self.query_length - 1 - self.key_start  # from the last query to the first key
            after = self.key_start + self.key_length - 1 - self.query_start  # from the first query to the last key
            if (left is None or before <= left) and (right is None or after <= right):
                return None
        # [batch, 1, 1, keys] by padding, [batch, 1, queries, keys] by packing, [1 or batch, 1, queries, keys] by the pattern
        allowed = None if self.valid is None else self.valid[:, None, None, :]
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :]
            allowed = same if allowed is None else allowed & same
        if left is not None or right is not None:
            low, high = self.interval(device)
            keys = torch.arange(0, self.key_length, device=device)
            near = (keys >= low[:, None, :, None]) & (keys <= high[:, None, :, None])
            allowed = near if allowed is None else allowed & near
        return allowed


def last_of_run(numbers: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """For each position, the last position of its run of equal numbers; -1 where the number is -1."""
    length = numbers.shape[1]
    places = torch.arange(length, device=numbers.device)
    # no number is -2, so the last position ends a run
    ends = numbers != functional.pad(numbers[:, 1:], (0, 1), value=-2)
    # the nearest end at or after each position: a minimum accumulated from the right
    last = torch.where(ends, places, length).flip(1).cummin(1).values.flip(1)
    return last.masked_fill(numbers < 0, -1)


@dataclass(frozen=True)
class JoinedMask:
    """The mask over the concatenated keys of one or several sequences: two in merged attention, one more for sinks, else one.
    That of the queries comes first.

    lowered: the forms that kernels converted it to, so that each is computed once for all layers that share the mask.
    """

    parts: tuple[Mask, ...]
    lowered: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, called only at the first request for `key`."""
        if key not in self.lowered:
            self.lowered[key] = make()
        made: T = self.lowered[key]
        return made

    @property
    def padded(self) -> bool:
        return any(part.padded for part in self.parts)

    @property
    def lengths(self) -> tuple[int, int]:
        """The number of queries and the number of keys."""
        return self.parts[0].query_length, sum([part.key_length for part in self.parts])

    def rows(self, begin: int, end: int) -> "JoinedMask":
        """The mask of queries `begin` to `end` on all keys."""
        return JoinedMask(tuple(part.rows(begin, end) for part in self.parts))

    def seen_by(self, count: int) -> int:
        return sum(part.seen_by(count) for part in self.parts)

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 query_length key_length"] | None:
        """True where a query may attend; None where nothing is masked."""
        if len(self.parts) == 1:
            allowed = self.parts[0].dense(device)
            return None if allowed is None else allowed.expand(-1, -1, self.parts[0].query_length, -1)
        masks = [(part, part.dense(device)) for part in self.parts]
        if all(allowed is None for _, allowed in masks):
            return None
        batch = max(1 if allowed is None else allowed.shape[0] for _, allowed in masks)  # `len` would fix it in a program
        whole = [
            torch.ones((1, 1, part.query_length, part.key_length), dtype=torch.bool, device=device)
            if allowed is None
            else allowed
            for part, allowed in masks
        ]
        length = self.lengths[0]
        return torch.cat([allowed.expand(batch, -1, length, -1) for allowed in whole], dim=-1)
