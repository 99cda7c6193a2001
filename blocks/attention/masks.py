"""A mask is data: which keys a query may attend to, as one small value that each kernel lowers to its own form."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.context import Reads

T = TypeVar("T")
ROWS = 512
"""Queries whose whole row of a mask is held at a time."""


class MaskPattern(NamedTuple):
    """What an architecture fixes of a mask, as plain values: see `MaskSpec`, which declares it."""

    causal: bool = False
    window: tuple[int, int] | None = None
    prefix: bool = False


FULL = MaskPattern()
"""Every query sees every key."""


@dataclass(frozen=True)
class Mask:
    """The whole mask of one attention call.

    Queries stand at `query_start ...`, keys at `key_start ...`. `valid` is False at keys that are padding. `reads` names
    the sequence that the keys come from; causality and windows only make sense within the queries' own. `blocks` numbers
    the runs of tokens that see each other whatever causality says (a picture's, or a prefix), and -1 elsewhere; a window bounds
    them on the left, and with a prefix on the right too. Segments number the documents that are packed in one row: a query sees
    its own document's keys alone.
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
        """Whether some query may be left with no key at all."""
        return self.valid is not None or self.key_segments is not None

    @property
    def window(self) -> tuple[int | None, int | None]:
        """How many tokens a query sees to its left and right by its pattern; None is all."""
        left, right = self.pattern.window or (None, None)
        return left, 0 if self.pattern.causal else right

    @property
    def ahead(self) -> int | None:
        """How many tokens a query sees to its right within its block; None is all."""
        return self.pattern.window[1] if self.pattern.prefix and self.pattern.window is not None else None

    def rows(self, begin: int, end: int) -> "Mask":
        """The mask of queries `begin` to `end` on all keys."""
        segments = None if self.query_segments is None else self.query_segments[:, begin:end]
        return replace(self, query_start=self.query_start + begin, query_length=end - begin, query_segments=segments)

    def seen_by(self, count: int) -> int:
        """The most keys that `count` neighbouring queries see together."""
        left, right = self.window
        right = right if self.blocks is None else self.ahead
        return self.key_length if left is None or right is None else min(self.key_length, count + left + right)

    def unrestricted(self) -> bool:
        """Whether every query may attend to every key."""
        left, right = self.window
        last_query = self.query_start + self.query_length - 1
        last_key = self.key_start + self.key_length - 1
        near = left is None or last_query - self.key_start <= left
        return not self.padded and near and (right is None or last_key - self.query_start <= right)

    def interval(self, device: torch.device) -> tuple[Int[Tensor, "rows queries"], Int[Tensor, "rows queries"]]:
        """The first and the last place among the keys that each query may see by causality, window and blocks. One row
        where all have the same.
        """
        queries = torch.arange(self.query_start, self.query_start + self.query_length, device=device)[None]
        left, right = self.window
        left = self.query_start + self.query_length if left is None else left  # far enough to see all
        right = self.key_start + self.key_length if right is None else right
        most = self.key_length - 1
        low, high = (queries - left - self.key_start).clamp(min=0), (queries + right - self.key_start).clamp(max=most)
        if self.blocks is not None:
            last = last_of_run(self.blocks)[:, queries[0]]
            last = last if self.ahead is None else torch.minimum(last, queries + self.ahead)
            high = torch.maximum(high, last - self.key_start).clamp(max=most)
        return low, high

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 queries key_length"] | None:
        """True where a query may attend. None where nothing is masked; one row where only keys decide, one batch where
        neither padding nor packing does.
        """
        if self.unrestricted():
            return None
        allowed = None if self.valid is None else self.valid[:, None, None, :]
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :]
            allowed = same if allowed is None else allowed & same
        if self.window != (None, None):
            low, high = (bound[:, None, :, None] for bound in self.interval(device))
            keys = torch.arange(0, self.key_length, device=device)
            near = (keys >= low) & (keys <= high)
            allowed = near if allowed is None else allowed & near
        return allowed


def last_of_run(numbers: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """The last place of the run of equal numbers that each place is in; -1 where the number is -1."""
    length = numbers.shape[1]
    places = torch.arange(length, device=numbers.device)
    ends = numbers != functional.pad(numbers[:, 1:], (0, 1), value=-2)
    last = torch.where(ends, places, length).flip(1).cummin(1).values.flip(1)
    return last.masked_fill(numbers < 0, -1)


@dataclass(frozen=True)
class JoinedMask:
    """Masks over keys that stand one part after the other: two in merged attention, else one.

    lowered: what kernels made of it, so that each form is made once for all layers that share the mask.
    """

    parts: tuple[Mask, ...]
    lowered: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, called only the first time that `key` is asked for."""
        if key not in self.lowered:
            self.lowered[key] = make()
        made: T = self.lowered[key]
        return made

    @property
    def padded(self) -> bool:
        return any(part.padded for part in self.parts)

    @property
    def lengths(self) -> tuple[int, int]:
        """How many queries and how many keys there are."""
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
        found = [(part, part.dense(device)) for part in self.parts]
        if all(allowed is None for _, allowed in found):
            return None
        batch = max(1 if allowed is None else len(allowed) for _, allowed in found)
        whole = [
            torch.ones((1, 1, part.query_length, part.key_length), dtype=torch.bool, device=device)
            if allowed is None
            else allowed
            for part, allowed in found
        ]
        length = self.lengths[0]
        return torch.cat([allowed.expand(batch, -1, length, -1) for allowed in whole], dim=-1)

    def lost(self, device: torch.device) -> Bool[Tensor, "batch 1 query_length 1"] | None:
        """True at queries that may attend to no key; None where each has one."""
        if not self.padded:
            return None
        found, length = [], self.lengths[0]
        for begin in range(0, length, ROWS):
            allowed = self.rows(begin, min(begin + ROWS, length)).dense(device)
            assert allowed is not None, "it is padded"
            found.append(~allowed.any(-1, keepdim=True))
        return torch.cat(found, dim=2)
