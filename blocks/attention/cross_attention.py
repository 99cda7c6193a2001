"""Attention of a decoder to its source, the encoder's output."""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pairform.blocks.attention.masks import FULL, JoinedMask, Mask
from pairform.blocks.attention.projections import AttentionHeads, AttentionSpec, Read
from pairform.blocks.context import Context
from pairform.blocks.functional.processor import onednn_multiplies
from pairform.blocks.key_values import KeyValues
from pairform.registry import InputError, Problem, Scales, Sizes


def source_keys(project: Callable[[Tensor], tuple[Tensor, Tensor]], context: Context, layer: int | None = None) -> KeyValues:
    """The source's keys and values, projected once and then read from the cache.

    Args:
        project: maps the source `[batch, source_length, source_width]` to keys and values
            `[batch, kv_heads, source_length, head_dim]`.
        layer: the encoder layer whose output is the source; None is the encoder's output.

    Raises:
        InputError: there is no source.
    """
    if context.source is None:
        raise InputError(Problem("encoder_outputs", "no source", "the encoder's output for attention to read"))
    held = context.cache.source.get(context.place) if context.cache is not None else None
    if held is None:
        held = KeyValues(*project(context.source.hidden if layer is None else context.source.layers[layer]))
        if context.cache is not None:
            held = context.cache.source[context.place] = stored(held)
    return held


def read_source(held: KeyValues, queries: int, context: Context) -> Read:
    """The source's keys and values with the mask of `queries` new queries."""
    length = held.keys.shape[2]
    mask = context.once(("source", queries, length), lambda: source_mask(queries, length, context))
    return Read(held.keys, held.values, mask)


def source_mask(queries: int, length: int, context: Context) -> JoinedMask:
    """The mask of `queries` new queries over the source: all tokens but padding and those of other documents."""
    assert context.source is not None
    # over cached and new tokens, of which the queries are the new ones
    segments = context.segments
    mask = Mask(
        FULL,
        query_start=0,
        query_length=queries,
        key_start=0,
        key_length=length,
        valid=context.source.valid,
        reads="source",
        query_segments=None if segments is None else segments[:, context.offset :],
        key_segments=None if segments is None else context.source.segments,
    )
    return JoinedMask((mask,))


def stored(held: KeyValues) -> KeyValues:
    """The same keys and values in the memory layout that the products of every decoding step read fastest.

    On a CPU that multiplies in their dtype, a product with one row is fastest as a sum of rows of the other matrix: keys by
    channel and values by token. Otherwise it is fastest as scalar products: keys by token and values by channel.
    """
    if held.keys.device.type != "cpu":
        return KeyValues(held.keys.contiguous(), held.values.contiguous())
    if onednn_multiplies(held.keys.dtype):
        return KeyValues(by_channel(held.keys), held.values.contiguous())
    return KeyValues(held.keys.contiguous(), by_channel(held.values))


def by_channel(heads: Float[Tensor, "batch kv_heads length head_dim"]) -> Float[Tensor, "batch kv_heads length head_dim"]:
    """A copy in which the tokens of each channel are contiguous."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return heads.mT.contiguous().mT
    batch, kv_heads, length, head_dim = heads.shape
    copied = heads.new_empty(batch, kv_heads * head_dim, length)
    for row, copy in zip(heads.transpose(1, 2).flatten(2), copied, strict=True):
        copy.copy_(row.t())  # torch transposes matrices in blocks, but not batches of them
    return copied.view(batch, kv_heads, head_dim, length).mT


def check_source(name: str, sizes: Sizes) -> Iterator[Problem]:
    """Yield a problem if the block called `name` is in a stack that has no source."""
    if sizes.source_width is None:
        yield Problem("", f"{name} in a stack without a source", "a decoder with an encoder")


class CrossAttention(AttentionHeads):
    """Queries from the decoder, keys and values from the encoder's output, which may have another width.

    There is no positional encoding and no window (T5Gemma, arXiv 2504.06225, section 3.1). The keys and values of the source
    are computed once and kept in the cache.
    """

    class Spec(AttentionSpec):
        name: Literal["cross_attention"] = "cross_attention"
        formula: ClassVar[str] = r"""
        $$k_j = W_K z_j, \qquad v_j = W_V z_j, \qquad
        a_{ij} = \frac{\exp(q_i^\top k_j / \sqrt{c})}{\sum_l \exp(q_i^\top k_l / \sqrt{c})},
        \qquad y_i = W_O \sum_j a_{ij} v_j$$

        where $z_j$ is token $j$ of the source and $q_i = W_Q x_i$; the sums omit padding.
        """
        source_layer: Annotated[Literal["last", "matching"] | int, Scales("source_layer")] = Field(
            default="last",
            description="Encoder layer to attend to. last: the encoder's output; a number: that layer's output, from 0, or -1 "
            "for the last; matching: that of the layer with the decoder layer's number (He et al. 2018, 'Layer-Wise "
            "Coordination between Encoder and Decoder', NeurIPS). A layer's output passes through the encoder's final norm and "
            "the bridge.",
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            yield from super().check(sizes)
            yield from check_source(self.name, sizes)
            depth = sizes.source_depth
            if depth is None:
                return
            if self.source_layer == "matching" and depth != sizes.depth:
                found = f"'matching' between {depth} layers of the encoder and {sizes.depth} of the decoder"
                yield Problem("source_layer", found, "as many layers in both", "Or name a layer by its number.")
            if isinstance(self.source_layer, int) and not -depth <= self.source_layer < depth:
                yield Problem("source_layer", str(self.source_layer), f"a layer of the encoder, from {-depth} to {depth - 1}")

        def reads(self, sizes: Sizes) -> int | None:
            """The number of the encoder layer to attend to; None is the encoder's output."""
            if isinstance(self.source_layer, int):
                assert sizes.source_depth is not None, "given by every model with an encoder"
                return self.source_layer % sizes.source_depth
            return sizes.layer if self.source_layer == "matching" else None

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        assert sizes.source_width is not None, "checked by the spec"
        super().__init__(spec, sizes, key_width=sizes.source_width)
        self.spec = spec
        self.source_layer = spec.reads(sizes)

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        source = read_source(source_keys(self.keys_values, context, self.source_layer), hidden.shape[1], context)
        return self.output(self.attend(self.queries(hidden), (source,), context), hidden)
