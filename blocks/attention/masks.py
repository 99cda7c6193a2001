"""A mask is data: which keys a query may attend to, as one small value that each kernel lowers to its own form."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pairform.blocks.context import Reads
from pairform.registry import Pair, Spec


class MaskSpec(Spec):
    """The part of a mask that an architecture fixes.

    window: how many tokens a query sees to its left and right beside itself; absent, all. `causal` cuts off the right.
    """

    causal: bool = False
    window: Pair | None = None


@dataclass(frozen=True)
class Mask:
    """The whole mask of one attention call.

    Queries stand at `query_start ...`, keys at `key_start ...`. `valid` is False at keys that are padding. `reads` names
    the sequence that the keys come from; causality and windows only make sense within the queries' own. `blocks` numbers
    the runs of tokens that see each other whatever causality says (a picture's), and -1 elsewhere.
    """

    spec: MaskSpec
    query_start: int
    query_length: int
    key_start: int
    key_length: int
    valid: Bool[Tensor, "batch key_length"] | None = None
    reads: Reads = "own"
    blocks: Int[Tensor, "batch total_length"] | None = None

    @property
    def padded(self) -> bool:
        """Whether some query may be left with no key at all."""
        return self.valid is not None

    def key(self) -> tuple[object, ...]:
        """Equal for masks that lower to the same thing within one forward pass."""
        lengths = (self.query_start, self.query_length, self.key_start, self.key_length)
        return (self.spec, self.reads, *lengths)

    def within(self, begin: int, end: int) -> tuple[slice, "Mask"]:
        """The keys that queries `begin` to `end` may see, as places among the keys, and the mask of these queries on them."""
        first, last = self.query_start + begin, self.query_start + end - 1
        low, high = self.key_start, self.key_start + self.key_length
        left, right = self.spec.window or (None, None)
        if left is not None:
            low = max(low, first - left)
        if self.blocks is None:
            high = high if right is None else min(high, last + right + 1)
            high = min(high, last + 1) if self.spec.causal else high
        low, high = min(low, high - 1), max(high, low + 1)  # some key, for a query that sees none
        place = slice(low - self.key_start, high - self.key_start)
        valid = None if self.valid is None else self.valid[:, place]
        return place, replace(
            self, query_start=first, query_length=end - begin, key_start=low, key_length=high - low, valid=valid
        )

    def seen_by(self, count: int) -> int:
        """The most keys that `count` neighbouring queries see together."""
        if self.spec.window is None or (self.blocks is not None):
            return self.key_length
        left, right = self.spec.window
        return min(self.key_length, count + left + (0 if self.spec.causal else right))

    def unrestricted(self) -> bool:
        """Whether every query may attend to every key."""
        last_query = self.query_start + self.query_length - 1
        last_key = self.key_start + self.key_length - 1
        if self.valid is not None or (self.spec.causal and last_key > self.query_start):
            return False
        if self.spec.window is None:
            return True
        left, right = self.spec.window
        return last_query - self.key_start <= left and last_key - self.query_start <= right

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 queries key_length"] | None:
        """True where a query may attend. None where nothing is masked; one row where only keys decide, one batch where
        padding does not.
        """
        if self.unrestricted():
            return None
        if not self.spec.causal and self.spec.window is None:
            assert self.valid is not None, "or it would be unrestricted"
            return self.valid[:, None, None, :]
        queries = torch.arange(self.query_start, self.query_start + self.query_length, device=device)
        keys = torch.arange(self.key_start, self.key_start + self.key_length, device=device)
        distance = queries[:, None] - keys[None, :]
        allowed = torch.ones(distance.shape, dtype=torch.bool, device=device)
        if self.spec.causal:
            allowed &= distance >= 0
        if self.spec.window is not None:
            allowed &= distance >= -self.spec.window[1]
        allowed = allowed[None, None]
        if self.blocks is not None:
            of_queries, of_keys = (self.blocks[:, None, places] for places in (queries, keys))
            allowed = allowed | ((of_queries[..., :, None] == of_keys[..., None, :]) & (of_keys >= 0)[..., None, :])
        if self.spec.window is not None:
            allowed = allowed & (distance <= self.spec.window[0])
        return allowed if self.valid is None else allowed & self.valid[:, None, None, :]


@dataclass(frozen=True)
class JoinedMask:
    """Masks over keys that stand one part after the other: two in merged attention, else one."""

    parts: tuple[Mask, ...]

    @property
    def padded(self) -> bool:
        return any(part.padded for part in self.parts)

    @property
    def lengths(self) -> tuple[int, int]:
        """How many queries and how many keys there are."""
        return self.parts[0].query_length, sum(part.key_length for part in self.parts)

    def key(self) -> tuple[object, ...]:
        return tuple(part.key() for part in self.parts)

    def within(self, begin: int, end: int) -> tuple[tuple[slice, ...], "JoinedMask"]:
        """`Mask.within`, of each part."""
        found = [part.within(begin, end) for part in self.parts]
        return tuple(place for place, _ in found), JoinedMask(tuple(mask for _, mask in found))

    def seen_by(self, count: int) -> int:
        return sum(part.seen_by(count) for part in self.parts)

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 query_length key_length"] | None:
        """True where a query may attend; None where nothing is masked."""
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
