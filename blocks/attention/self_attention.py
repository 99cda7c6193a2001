"""Attention of a sequence to itself."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.heads import AttentionHeads, AttentionSpec
from pairform.blocks.attention.masks import Mask, MaskSpec
from pairform.blocks.cache import KeyValues, OwnKeys
from pairform.blocks.context import Context, TokenSlot
from pairform.blocks.positions import NoPosition
from pairform.registry import BlockSpec, Problem, Sizes, Slot, build_block

ANY = MaskSpec()


class OwnSequenceSpec(AttentionSpec):
    """position: applied to queries and to the keys of their own sequence. mask: over that sequence."""

    position: Annotated[BlockSpec, Slot("position")] = NoPosition.Spec()
    mask: MaskSpec = MaskSpec()

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from super().check(sizes)
        head_dim = self.head_dim or sizes.width // self.heads
        yield from (problem.inside("position") for problem in self.position.check(Sizes(head_dim)))


class OwnSequenceAttention(AttentionHeads):
    """Attention that reads at least the sequence of its queries."""

    def __init__(self, spec: OwnSequenceSpec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, key_width=sizes.width)
        self.mask = spec.mask
        self.position = build_block(spec.position, Sizes(self.head_dim), "position")

    def read_own(self, hidden: Float[Tensor, "batch length width"], context: Context) -> tuple[KeyValues, Mask]:
        """Keys and values of the sequence so far, and which of them each query may see. A local layer's cache is as long as
        its window."""
        keys, values = self.keys_values(hidden)
        keys = self.position(keys, context)
        if context.slots is not None:
            return self.read_slots(keys, values, context.slots[self.reach], context)
        held = KeyValues(keys, values, context.offset)
        if context.cache is not None:
            if (own := context.cache.own.get(context.place)) is None:
                own = OwnKeys(KeyValues(keys[:, :, :0], values[:, :, :0]), self.reach, start=context.offset)
                context.cache.own[context.place] = own
            held = own.write(keys, values, context.cache.room)
        mask = Mask(
            self.mask,
            query_start=context.offset,
            query_length=hidden.shape[1],
            key_start=held.start,
            key_length=held.keys.shape[2],
            valid=None if context.valid is None else context.valid[:, held.start :],
            blocks=context.blocks if self.mask.causal else None,
            query_segments=None if context.segments is None else context.segments[:, context.offset :],
            key_segments=None if context.segments is None else context.segments[:, held.start :],
        )
        return held, mask

    @property
    def reach(self) -> int | None:
        """How many earlier tokens a later one may need: a causal window. None where all."""
        return self.mask.window[0] if self.mask.window is not None and self.mask.causal else None

    def read_slots(self, keys: Tensor, values: Tensor, slot: TokenSlot, context: Context) -> tuple[KeyValues, Mask]:
        """For a step of one token: the cache's buffers whole, and a mask of those places in them that it may see."""
        assert context.cache is not None
        whole = context.cache.own[context.place].put(keys, values, slot.token)
        capacity, reach = whole.keys.shape[2], self.reach

        def make() -> Tensor:
            places = torch.arange(capacity, device=keys.device)[None]
            seen = places <= slot.token
            if reach is not None:
                seen = seen & (places >= slot.token - reach)
            return seen if slot.first is None else seen & (places >= slot.first)

        valid = context.once(("slots", reach, capacity), make)
        start = 0 if reach is None else reach + 1  # where all counts is `valid`, this only tells masks of unequal reach apart
        return whole, Mask(ANY, start, 1, start, capacity, valid)


class SelfAttention(OwnSequenceAttention):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) with grouped keys, softcap and window."""

    class Spec(OwnSequenceSpec):
        name: Literal["self_attention"] = "self_attention"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        return self.mix(queries, (self.read_own(hidden, context),), context)
