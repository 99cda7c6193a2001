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


class SelfAttention(AttentionHeads):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) with grouped keys, softcap and window."""

    class Spec(AttentionSpec):
        name: Literal["self_attention"] = "self_attention"
        position: Annotated[BlockSpec, Slot("position")] = NoPosition.Spec()
        mask: MaskSpec = MaskSpec()

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            yield from super().check(sizes)
            head_dim = self.head_dim or sizes.width // self.heads
            yield from (problem.inside("position") for problem in self.position.check(Sizes(head_dim)))

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, key_width=sizes.width)
        self.spec = spec
        self.position = build_block(spec.position, Sizes(self.head_dim), "position")

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        keys, values = self.keys_values(hidden)
        held = KeyValues(self.position(keys, context), values, context.offset)
        if context.cache is not None:
            if (earlier := context.cache.own.get(context.place)) is not None:
                held = earlier.then(held.keys, held.values)
            window = self.spec.mask.window
            bounded = window is not None and self.spec.mask.causal
            context.cache.own[context.place] = held.last(window[0]) if window and bounded else held
        valid = context.valid
        mask = Mask(
            self.spec.mask,
            query_start=context.offset,
            query_length=hidden.shape[1],
            key_start=held.start,
            key_length=held.keys.shape[2],
            valid=None if valid is None else valid[:, held.start :],
        )
        return self.mix(queries, held.keys, held.values, mask, context)
