"""Marks on the fields of specs that change when a model is scaled to another width or depth."""

from dataclasses import dataclass
from typing import Literal

Measure = Literal["width", "heads", "kv_heads", "head_dim", "head_part", "head_pairs", "scores", "window", "source_layer"]


@dataclass(frozen=True)
class Scales:
    """Marks a field that changes when a model is scaled: `hidden: Annotated[PositiveInt, Scales("width")]`.

    Fields without a mark keep their value, so that counts (experts, buckets, positions) stay.

    by: what the field is in proportion to, or is.
        width:        in proportion to the stack's width.
        heads, kv_heads, head_dim: a block's number of query heads, of key and value heads, and the channels of a head. They are
                      scaled together: the channels of all heads in proportion to the width.
        head_part:    in proportion to the block's `head_dim`.
        head_pairs:   a list with a number for each pair of a head's channels.
        scores:       a factor on attention scores, in proportion to `head_dim ** -0.5`.
        window:       a pair of distances between tokens.
        source_layer: the number of an encoder layer.
    """

    by: Measure
