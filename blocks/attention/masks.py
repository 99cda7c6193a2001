"""A mask is data: which keys a query may attend to, as one small value that each kernel lowers to its own form."""

from dataclasses import dataclass

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

    def dense(self, device: torch.device) -> Bool[Tensor, "batch 1 query_length key_length"] | None:
        """True where a query may attend; the batch is 1 without padding. None where nothing is masked."""
        if self.unrestricted():
            return None
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

    def key(self) -> tuple[object, ...]:
        return tuple(part.key() for part in self.parts)

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
        return torch.cat([allowed.expand(batch, -1, -1, -1) for allowed in whole], dim=-1)
