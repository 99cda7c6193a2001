"""Attention of a sequence to itself."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pairform.blocks.attention.kernels.capabilities import Demand
from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.attention.masks import FULL, Mask
from pairform.blocks.attention.projections import AttentionHeads, AttentionSpec, Read
from pairform.blocks.cache import KeyValues, OwnKeys
from pairform.blocks.context import Context, TokenSlot
from pairform.blocks.positions.base import NoPosition, ScoreBias, ScoreBiasSpec
from pairform.registry import BlockSpec, Problem, Sizes, Slot, build_block


class OwnSequenceSpec(AttentionSpec):
    """Options of every attention that reads the sequence of its queries."""

    position: Annotated[BlockSpec, Slot("position")] = Field(
        default=NoPosition.Spec(),
        description="Positional encoding of queries and of the keys of their own sequence, or of their scores.",
    )
    mask: MaskSpec = Field(default=MaskSpec(), description="Which tokens of its own sequence a query sees.")

    @property
    def demand(self) -> Demand:
        demand = super().demand
        return replace(
            demand, bias=demand.bias or isinstance(self.position, ScoreBiasSpec), pictures=demand.pictures or self.mask.prefix
        )

    def position_sizes(self, sizes: Sizes) -> Sizes:
        """What the position learns from its surroundings: a head's width, and how many heads there are."""
        return Sizes(self.head_dim or sizes.width // self.heads, depth=sizes.depth, layer=sizes.layer, heads=self.heads)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from super().check(sizes)
        yield from (problem.inside("position") for problem in self.position.check(self.position_sizes(sizes)))

    def sited(self, sizes: Sizes) -> dict[str, Any]:
        position = self.position.sited(self.position_sizes(sizes))
        return {"position": position} if position else {}


class OwnSequenceAttention(AttentionHeads):
    """Attention that reads at least the sequence of its queries."""

    def __init__(self, spec: OwnSequenceSpec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, key_width=sizes.width)
        self.mask, self.pattern = spec.mask, spec.mask.pattern
        self.position = build_block(spec.position, spec.position_sizes(sizes), "position")
        self.biases_scores = isinstance(self.position, ScoreBias)

    def read_own(self, keys: Tensor, values: Tensor, context: Context) -> Read:
        """Keys and values of the sequence so far: these, after the earlier tokens' where there is a cache. The cache of a local
        layer is as long as its window."""
        if context.slots is not None:
            return self.read_slots(keys, values, context.slots[self.reach], context)
        held = KeyValues(keys, values, context.offset)
        if context.cache is not None:
            if (own := context.cache.own.get(context.place)) is None:
                own = OwnKeys(KeyValues(keys[:, :, :0], values[:, :, :0]), self.reach, start=context.offset)
                context.cache.own[context.place] = own
            held = own.write(keys, values, context.cache.room)
        first, length = held.start, held.keys.shape[2]
        mask = context.once((self.pattern, first, length), lambda: self.own_mask(first, length, context))
        return Read(held.keys, held.values, mask, self.score_bias(mask, context) if self.biases_scores else None)

    def own_mask(self, first: int, length: int, context: Context) -> Mask:
        """Which of `length` keys, the last of them the newest token's, each new token may see."""
        segments = context.segments
        return Mask(
            self.pattern,
            query_start=context.offset,
            query_length=first + length - context.offset,
            key_start=first,
            key_length=length,
            valid=None if context.valid is None else context.valid[:, first:],
            blocks=self.blocks(context),
            query_segments=None if segments is None else segments[:, context.offset :],
            key_segments=None if segments is None else segments[:, first:],
        )

    def blocks(self, context: Context) -> Int[Tensor, "batch total_length"] | None:
        """Numbers of the runs of tokens that see each other whatever causality says: those of pictures, and the prefix."""
        if not self.mask.causal:
            return None
        prefix = context.prefix
        if prefix is None or not self.mask.prefix:
            return context.blocks

        def make() -> Int[Tensor, "batch total_length"]:
            others = torch.full_like(prefix, -1, dtype=torch.long) if context.blocks is None else context.blocks
            return others.masked_fill(prefix, torch.iinfo(torch.long).max)

        return context.once("prefix", make)

    def score_bias(self, mask: Mask, context: Context) -> Float[Tensor, "heads distances"]:
        """What the position adds to the scores of keys in the cache's order, for each distance that there is."""

        def make() -> Int[Tensor, "1 distances"]:
            device = context.positions.device
            if context.slots is not None:
                return torch.arange(mask.key_length, device=device)[None] - context.slots[self.reach].token[:, None]
            first = mask.key_start - (mask.query_start + mask.query_length - 1)
            return torch.arange(first, first + mask.key_length + mask.query_length - 1, device=device)[None]

        return self.position.score_bias(context.once(("distances", id(mask)), make), context)[:, 0]

    @property
    def reach(self) -> int | None:
        """How many earlier tokens a later one may need: a causal window. None where all."""
        return self.mask.window[0] if self.mask.window is not None and self.mask.causal else None

    def read_slots(self, keys: Tensor, values: Tensor, slot: TokenSlot, context: Context) -> Read:
        """For a step of one token: the cache's buffers whole, and a mask of those places in them that it may see."""
        assert context.cache is not None
        whole = context.cache.own[context.place].put(keys, values, slot.token)
        capacity, reach = whole.keys.shape[2], self.reach

        def allowed() -> Tensor:
            places = torch.arange(capacity, device=keys.device)[None]
            seen = places <= slot.token
            if reach is not None:
                seen = seen & (places >= slot.token - reach)
            return seen if slot.first is None else seen & (places >= slot.first)

        mask = context.once(("slots", reach, capacity), lambda: Mask(FULL, 0, 1, 0, capacity, allowed()))
        return Read(whole.keys, whole.values, mask, self.score_bias(mask, context) if self.biases_scores else None)


class SelfAttention(OwnSequenceAttention):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) with grouped keys, softcap and window."""

    class Spec(OwnSequenceSpec):
        name: Literal["self_attention"] = "self_attention"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        keys, values = self.keys_values(hidden)
        own = self.read_own(self.position(keys, context), values, context)
        return self.output(self.attend(queries, (own,), context), hidden)
