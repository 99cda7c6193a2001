"""Attention of a sequence to itself."""

from collections.abc import Iterator
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.heads import AttentionHeads, AttentionSpec
from pairform.blocks.attention.masks import Mask, MaskSpec
from pairform.blocks.cache import KeyValues
from pairform.blocks.context import Context
from pairform.blocks.positions import NoPosition
from pairform.registry import BlockSpec, Problem, Sizes, Slot, build_block


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
        held = KeyValues(self.position(keys, context), values, context.offset)
        if context.cache is not None:
            if (earlier := context.cache.own.get(context.place)) is not None:
                held = earlier.then(held.keys, held.values)
            window = self.mask.window
            bounded = window is not None and self.mask.causal
            context.cache.own[context.place] = held.last(window[0]) if window and bounded else held
        mask = Mask(
            self.mask,
            query_start=context.offset,
            query_length=hidden.shape[1],
            key_start=held.start,
            key_length=held.keys.shape[2],
            valid=None if context.valid is None else context.valid[:, held.start :],
            blocks=context.blocks if self.mask.causal else None,
        )
        return held, mask


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
