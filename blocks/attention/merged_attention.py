"""Self-attention and cross-attention in one softmax."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from pairform.blocks.attention.cross_attention import check_source, read_source, source_keys
from pairform.blocks.attention.self_attention import OwnSequenceAttention, OwnSequenceSpec
from pairform.blocks.context import Context
from pairform.blocks.functional.linear import Linear
from pairform.blocks.key_values import KeyValues
from pairform.registry import Problem, Sizes


class MergedAttention(OwnSequenceAttention):
    """One softmax over the decoder's own tokens and the encoder's output (T5Gemma 2, arXiv 2512.14856, section 2).

    Own tokens and source share one set of projections and q/k norms; the pre-norm of the branch does not apply to the source.
    Positions and windows apply to the own tokens only: every query attends to the whole source, in local layers too. With the
    bridge `separate_keys` the source has a key and a value projection of its own. A layer that shares the keys of an earlier
    one also shares its keys and values of the source.
    """

    class Spec(OwnSequenceSpec):
        merged: ClassVar[bool] = True
        name: Literal["merged_attention"] = "merged_attention"
        formula: ClassVar[str] = r"""
        $$y_i = W_O \frac{\sum_j m_{ij} \exp(s_{ij}) v_j + \sum_l \exp(s'_{il}) v'_l}
        {\sum_j m_{ij} \exp(s_{ij}) + \sum_l \exp(s'_{il})}$$

        $$s_{ij} = \frac{q_i^\top W_K x_j}{\sqrt{c}}, \qquad s'_{il} = \frac{q_i^\top W_K z_l}{\sqrt{c}}, \qquad
        v_j = W_V x_j, \qquad v'_l = W_V z_l$$

        for own tokens $x_j$ with mask $m_{ij}$ and source tokens $z_l$. The position rotates $q_i$ and own keys, or
        adds a bias to $s_{ij}$; the keys of the source have none.
        """

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            yield from super().check(sizes)
            yield from check_source(self.name, sizes)
            if sizes.source_keys == "shared" and sizes.source_width not in (None, sizes.width):
                found = f"merged attention of width {sizes.width} to a source of width {sizes.source_width}"
                remedy = 'Set the model\'s bridge: {"name": "linear"} or {"name": "separate_keys"}.'
                yield Problem("", found, "a source of the same width, or a bridge to it", remedy)

    scored = ("q_proj", "k_proj", "source_k_proj")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        assert sizes.source_width is not None, "checked by the spec"
        super().__init__(spec, sizes)
        self.spec = spec
        self.separate = sizes.source_keys == "separate"
        if self.separate and spec.has_keys:
            out = self.kv_heads * self.head_dim
            self.source_k_proj = Linear(sizes.source_width, out, bias=bool(spec.bias))
            self.source_v_proj = None if spec.keys_as_values else Linear(sizes.source_width, out, bias=bool(spec.bias))

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        # own tokens first: the first part of a joined mask is that of the queries' sequence
        reads = self.own(hidden, context), read_source(self.source_keys(context), hidden.shape[1], context)
        return self.output(self.attend(queries, reads, context), hidden)

    def source_keys(self, context: Context) -> KeyValues:
        """The source's keys and values; those of the layer whose keys this one shares, if it does."""
        if self.keys_from is not None:
            return self.sized(context.shared_source_keys[self.keys_from])
        held = source_keys(self.source_keys_values, context)
        if self.keys_read_later:
            context.shared_source_keys[context.place] = held
        return held

    def source_keys_values(self, source: Float[Tensor, "batch length source_width"]) -> tuple[Tensor, Tensor]:
        """Keys and values of the source, both `[batch, kv_heads, length, head_dim]`, without positional encoding."""
        return self.keys_values(source, *((self.source_k_proj, self.source_v_proj) if self.separate else ()))
