"""Attention of a sequence to itself."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.dispatch import Demand
from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.attention.masks import FULL, JoinedMask, Mask, MaskPattern
from pairform.blocks.attention.projections import AttentionHeads, AttentionSpec, Read
from pairform.blocks.context import Context, TokenSlot
from pairform.blocks.functional.processor import HALVES, onednn_multiplies
from pairform.blocks.key_values import KeyValues, OwnKeys, Place
from pairform.blocks.positions.base import NoPosition, PositionedSpec, ScoreBias, ScoreBiasSpec
from pairform.registry import BlockSpec, Sizes, Slot, build_block


class OwnSequenceSpec(PositionedSpec, AttentionSpec):
    """Options of every attention block that attends to the sequence of its queries."""

    position: Annotated[BlockSpec, Slot("position")] = Field(
        default=NoPosition.Spec(),
        description="Positional encoding of queries and of the keys of their own sequence, or of their scores.",
    )
    mask: MaskSpec = Field(default=MaskSpec(), description="Tokens of its own sequence that a query attends to.")
    share_keys: bool = Field(
        default=False,
        description="Attend to the keys and values of an earlier layer, without projections and a cache of its own: of the "
        "nearest layer that has its own keys in the branch of the same name, with the same block, mask, position, kv_heads and "
        "head_dim (Brandon et al. 2024, arXiv 2405.12981; Gemma 3n and 4).",
    )

    @model_validator(mode="after")
    def _shared_keys_have_no_options(self) -> Self:
        if self.share_keys and (self.value_norm is not None or self.keys_as_values):
            raise ValueError("no value_norm and no keys_as_values with share_keys: they are options of the layer that is read")
        return self

    @property
    def has_keys(self) -> bool:
        return not self.share_keys

    @property
    def demand(self) -> Demand:
        demand = super().demand
        return replace(
            demand, bias=demand.bias or isinstance(self.position, ScoreBiasSpec), pictures=demand.pictures or self.mask.prefix
        )


class OwnSequenceAttention(AttentionHeads):
    """Base of the blocks that attend to the sequence of their queries, and perhaps to a source as well."""

    def __init__(self, spec: OwnSequenceSpec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, key_width=sizes.width)
        self.mask = spec.mask
        self.pattern = MaskPattern(spec.mask.causal, spec.mask.window, spec.mask.prefix)
        self.position = build_block(spec.position, spec.position_sizes(sizes), "position")
        self.biases_scores = isinstance(self.position, ScoreBias)
        # set by the stack: the place whose keys this block reads, and whether later layers read those of this block
        self.keys_from: Place | None = None
        self.keys_read_later = False

    def own(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Read:
        """Keys and values of the sequence so far, from this layer's projections or from the layer whose keys it shares."""
        if self.keys_from is not None:
            return self.read(self.sized(context.shared_keys[self.keys_from]), context)
        keys, values = self.keys_values(hidden)
        held = self.append(self.position(keys, context), values, context)
        if self.keys_read_later:
            context.shared_keys[context.place] = held
        return self.read(held, context)

    def sized(self, held: KeyValues) -> KeyValues:
        """Keys and values of another layer, in compiled code with this block's heads and channels: the sizes of what enters a
        compiled layer are unknown there, and kernels choose by them."""
        if not torch.compiler.is_compiling():
            return held
        keys, values = (part.expand(-1, self.kv_heads, -1, self.head_dim) for part in (held.keys, held.values))
        return KeyValues(keys, values, held.start)

    def read_own(self, keys: Tensor, values: Tensor, context: Context) -> Read:
        """Keys and values of the sequence so far with their mask and score bias; appends the new ones to the cache, if any.

        Args:
            keys: of the new tokens, rotated if the block uses RoPE, `[batch, kv_heads, length, head_dim]`.
            values: of the new tokens, `[batch, kv_heads, length, value_dim]`.
        """
        return self.read(self.append(keys, values, context), context)

    def append(self, keys: Tensor, values: Tensor, context: Context) -> KeyValues:
        """All keys and values that the new tokens may attend to: those in the cache, if any, and the new ones, appended to it.

        The cache of a local layer keeps only as many tokens as its window. A compiled step gets all of the cache's buffers, so
        that the shapes stay the same from step to step and one graph serves all of them.
        """
        if context.slots is not None:
            assert context.cache is not None
            return context.cache.own[context.place].put(keys, values, context.slots[self.reach].token)
        if context.cache is None:
            return KeyValues(keys, values, context.offset)
        if (own := context.cache.own.get(context.place)) is None:
            own = OwnKeys(KeyValues(keys[:, :, :0], values[:, :, :0]), self.reach, start=context.offset)
            context.cache.own[context.place] = own
        held = own.write(keys, values, context.cache.room)
        return own.whole if own.is_half_full and self.reads_whole(keys, context) else held

    def reads_whole(self, keys: Float[Tensor, "batch kv_heads length head_dim"], context: Context) -> bool:
        """Whether the queries of these new keys read whole buffers of the cache, of which their mask excludes the slots of
        other tokens: in decoding steps in half precision on a CPU (see `OwnKeys.whole`)."""
        return (
            keys.shape[2] == 1
            and self.pattern.causal
            and keys.device.type == "cpu"
            and keys.dtype in HALVES
            and context.weights is None
            and context.segments is None
            and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
            and onednn_multiplies(keys.dtype)
        )

    def read(self, held: KeyValues, context: Context) -> Read:
        """These keys and values with their mask and score bias.

        Masks depend on the pattern and on which keys are held, so that all layers that agree in both share one.
        """
        first, length = held.start, held.keys.shape[2]
        if context.slots is None:
            mask = context.once((self.pattern, first, length), lambda: self.own_mask(first, length, context))
        else:
            slot = context.slots[self.reach]
            mask = context.once(("slots", self.reach, length), lambda: self.mask_of_slots(slot, length))
        return Read(held.keys, held.values, mask, self.score_bias(mask, context) if self.biases_scores else None)

    def own_mask(self, first: int, length: int, context: Context) -> JoinedMask:
        """The mask of the new tokens over `length` keys, the first of which is at position `first`. Keys after the last new
        token are unused slots of the cache's buffers."""
        segments, prefix = context.segments, context.prefix
        blocks = context.blocks if self.pattern.causal else None
        if self.pattern.prefix and prefix is not None:  # its tokens are one more block
            others = torch.full_like(prefix, -1, dtype=torch.long) if blocks is None else blocks
            blocks = others.masked_fill(prefix, torch.iinfo(torch.long).max)
        queries, valid = context.positions.shape[1], context.valid
        if valid is not None:
            unused = first + length - valid.shape[1]
            valid = functional.pad(valid[:, first:], (0, unused)) if unused else valid[:, first:]
        mask = Mask(
            self.pattern,
            query_start=context.offset,
            query_length=queries,
            key_start=first,
            key_length=length,
            valid=valid,
            blocks=blocks,
            query_segments=None if segments is None else segments[:, context.offset :],
            key_segments=None if segments is None else segments[:, first:],
        )
        return JoinedMask((mask,))

    def score_bias(self, mask: JoinedMask, context: Context) -> Float[Tensor, "heads distances"]:
        """The score bias for each distance between a query and a key, in the order that `by_distance` reads."""

        def make() -> Int[Tensor, "1 distances"]:
            device, (part,) = context.positions.device, mask.parts
            if context.slots is not None:
                return torch.arange(part.key_length, device=device)[None] - context.slots[self.reach].token[:, None]
            # the smallest distance is that of the first key to the last query
            first = part.key_start - (part.query_start + part.query_length - 1)
            return torch.arange(first, first + part.key_length + part.query_length - 1, device=device)[None]

        # [heads, 1, distances] without the row of queries
        return self.position.score_bias(context.once(("distances", id(mask)), make), context)[:, 0]

    @property
    def reach(self) -> int | None:
        """How many earlier tokens a later query may attend to: the causal window; None is all."""
        return self.pattern.window[0] if self.pattern.window is not None and self.pattern.causal else None

    def mask_of_slots(self, slot: TokenSlot, capacity: int) -> JoinedMask:
        """The mask of the one token of a compiled step over `capacity` slots: those in use, within the window."""
        places = torch.arange(capacity, device=slot.token.device)[None]
        # by slots instead of positions: the kept tokens are consecutive slots, so distances are the same
        allowed = places <= slot.token
        if self.reach is not None:
            allowed = allowed & (places >= slot.token - self.reach)
        if slot.first is not None:
            allowed = allowed & (places >= slot.first)
        # causality and window are part of `allowed`, a tensor: numbers in a Mask would be constants of the graph
        return JoinedMask((Mask(FULL, 0, 1, 0, capacity, allowed),))


class SelfAttention(OwnSequenceAttention):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) with grouped keys, softcap and window."""

    class Spec(OwnSequenceSpec):
        name: Literal["self_attention"] = "self_attention"
        formula: ClassVar[str] = r"""
        $$q_i = W_Q x_i, \qquad k_j = W_K x_j, \qquad v_j = W_V x_j$$

        $$s_{ij} = \frac{q_i^\top k_j}{\sqrt{c}}, \qquad a_{ij} = \frac{m_{ij} \exp(s_{ij})}{\sum_l m_{il} \exp(s_{il})}, \qquad
        y_i = W_O \sum_j a_{ij} v_j$$

        in each head of $c$ channels; $W_O$ projects all heads. The mask $m_{ij}$ is 1 where query $i$ may attend to key $j$,
        else 0. The position rotates $q_i$ and $k_j$ or adds a bias to $s_{ij}$. With $K$ key heads, query head $h$ of $H$,
        counted from 0, attends to key head $\lfloor h K / H \rfloor$.
        """

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        return self.output(self.attend(queries, (self.own(hidden, context),), context), hidden)
