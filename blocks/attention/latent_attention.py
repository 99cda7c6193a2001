"""Self-attention whose cache holds one low-rank vector per token."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.dispatch import KERNELS, Demand
from pairform.blocks.attention.projections import AttentionSpec, Read
from pairform.blocks.attention.self_attention import OwnSequenceAttention, OwnSequenceSpec
from pairform.blocks.context import Context
from pairform.blocks.functional.linear import Linear
from pairform.blocks.norms import RMSNorm
from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Problem, Scales, Sizes, Slot, build_block


class LatentAttention(OwnSequenceAttention):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of all heads are projected from
    one latent vector per token. The position is encoded in an additional key that all heads share.

    The cache holds `latent + rope_dim` numbers per token. With several queries, keys and values are projected from them. With a
    single query, as in decoding, the query is projected into the latent space instead, which gives the same scores (ibid.,
    2.1.2).
    """

    class Spec(OwnSequenceSpec):
        name: Literal["latent_attention"] = "latent_attention"
        formula: ClassVar[str] = r"""
        $$c_j = \mathrm{norm}(W_D x_j), \qquad k^h_j = \left[ W^h_K c_j, R_j W_R x_j \right], \qquad v^h_j = W^h_V c_j, \qquad
        q^h_i = \left[ W^h_Q x_i, R_i W^h_S x_i \right]$$

        where $R_p$ is the rotation at position $p$ and $W_R x_j$ is the shared key. Attention continues as in `self_attention`,
        with scores divided by the square root of `head_dim + rope_dim`.
        """
        head_dim: Annotated[PositiveInt | None, Scales("head_dim")] = Field(
            default=None, description="Channels of a head without those of `rope_dim`. Default: `width / heads`."
        )
        scale: Annotated[PositiveFloat | None, Scales("scores")] = Field(
            default=None, description="Factor on the products of queries and keys. Default: `(head_dim + rope_dim) ** -0.5`."
        )
        bias: bool | Literal["qkv"] = Field(
            default=False,
            description="Add a learned bias to the projections from the width (`qkv`), or also to the one back to it (true).",
        )
        latent: Annotated[PositiveInt, Scales("width")] = Field(examples=[16], description="Channels of the latent vector.")
        rope_dim: Annotated[PositiveInt, Scales("head_part")] = Field(
            examples=[4],
            description="Channels of the shared key, and of the part of each query that is multiplied by it. `position` "
            "applies to these.",
        )
        value_dim: Annotated[PositiveInt | None, Scales("head_part")] = Field(
            default=None, description="Channels of a head's values. Default: `head_dim`."
        )
        query_latent: Annotated[PositiveInt | None, Scales("width")] = Field(
            default=None,
            description="Channels of a latent vector that queries are projected from. Default: queries are projected from the "
            "hidden states.",
        )
        latent_norm: Annotated[BlockSpec, Slot("norm")] = Field(
            default=RMSNorm.Spec(), description="Norm of the latent vectors, of keys and values and of queries."
        )

        @property
        def demand(self) -> Demand:
            demand = super().demand
            return replace(demand, head_dim=None if self.head_dim is None else self.head_dim + self.rope_dim)

        def position_sizes(self, sizes: Sizes) -> Sizes:
            return replace(super().position_sizes(sizes), width=self.rope_dim)

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            yield from super().check(sizes)
            unused = {
                "kv_heads": self.kv_heads,
                "qk_norm": self.qk_norm and self.qk_norm.name,
                "value_norm": self.value_norm and self.value_norm.name,
                "keys_as_values": self.keys_as_values or None,
                "share_keys": self.share_keys or None,
            }
            for field, found in unused.items():
                if found is not None:
                    expected = "null: all heads have keys and values of one latent vector, which has a norm of its own"
                    yield Problem(field, repr(found), expected)

    scored = ("q_down_proj", "q_proj", "k_proj")
    v_proj: Linear

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.spec = spec
        self.scale = spec.scale or (self.head_dim + spec.rope_dim) ** -0.5

    def add_projections(self, spec: AttentionSpec, sizes: Sizes, key_width: int) -> None:
        assert isinstance(spec, self.Spec)
        self.value_dim = spec.value_dim or self.head_dim
        self.q_down_proj = None
        if spec.query_latent is not None:
            self.q_down_proj = Linear(sizes.width, spec.query_latent, bias=bool(spec.bias))
            self.q_latent_norm = build_block(spec.latent_norm, Sizes(spec.query_latent), "norm")
        biased = bool(spec.bias) and spec.query_latent is None
        self.q_proj = Linear(spec.query_latent or sizes.width, self.heads * (self.head_dim + spec.rope_dim), bias=biased)
        self.kv_down_proj = Linear(key_width, spec.latent + spec.rope_dim, bias=bool(spec.bias))
        self.kv_latent_norm = build_block(spec.latent_norm, Sizes(spec.latent), "norm")
        self.k_proj = Linear(spec.latent, self.heads * self.head_dim, bias=False)
        self.v_proj = Linear(spec.latent, self.heads * self.value_dim, bias=False)

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        # [batch, heads, length, head_dim] and [..., rope_dim]
        content, rotated = torch.split(self.queries(hidden), [self.head_dim, self.spec.rope_dim], dim=-1)
        rotated = self.position(rotated, context)
        # of one head: [batch, 1, length, latent] and [..., rope_dim]
        latent, shared = self.parts(self.kv_down_proj(hidden)[:, None])
        entry = torch.cat((self.kv_latent_norm(latent), self.position(shared, context)), dim=-1)
        # the cache holds entries as keys of one head, and no values
        own = self.read_own(entry, entry[..., :0], context)
        mix = self.in_latents if hidden.shape[1] == 1 and self.absorbs else self.in_heads
        return self.output(mix(content, rotated, own, context), hidden)

    def queries(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length head_dim_and_rope_dim"]:
        source = hidden if self.q_down_proj is None else self.q_latent_norm(self.q_down_proj(hidden))
        return rearrange(self.q_proj(source), "b l (h d) -> b h l d", h=self.heads)

    def parts(self, entry: Float[Tensor, "batch 1 length latent_and_rope_dim"]) -> tuple[Tensor, Tensor]:
        """The latent vector and the shared key of each token."""
        latent, shared = torch.split(entry, [self.spec.latent, self.spec.rope_dim], dim=-1)
        return latent, shared

    @property
    def absorbs(self) -> bool:
        """Whether the key projection can be absorbed into the query: its weight is not quantised or prepacked, and the kernel
        supports heads as wide as the latent vector."""
        wide = Demand(head_dim=self.spec.latent + self.spec.rope_dim)
        takes = self.kernel not in KERNELS or KERNELS[self.kernel].refuses(wide) is None
        return takes and type(self.k_proj) is Linear

    def in_heads(
        self, content: Tensor, rotated: Tensor, own: Read, context: Context
    ) -> Float[Tensor, "batch heads length value_dim"]:
        """Attention with keys and values per head. Kernels require one width for both, so the narrower is padded with zeros."""
        # of all tokens so far, from the cache
        latent, shared = self.parts(own.keys)
        made = [
            rearrange(project(latent[:, 0]), "b k (h d) -> b h k d", h=self.heads) for project in (self.k_proj, self.v_proj)
        ]
        keys = torch.cat((made[0], shared.expand(-1, self.heads, -1, -1)), dim=-1)
        most = max(keys.shape[-1], self.value_dim)
        queries, keys, values = (filled(heads, most) for heads in (torch.cat((content, rotated), dim=-1), keys, made[1]))
        read = own._replace(keys=keys, values=values)
        return self.attend(queries, (read,), context)[..., : self.value_dim]

    def in_latents(
        self, content: Tensor, rotated: Tensor, own: Read, context: Context
    ) -> Float[Tensor, "batch heads length value_dim"]:
        """The same in the latent space: all heads attend to one key head, the latent vectors, which are also the values."""
        # q (W_k c) = (W_k^T q) c: the key projection moves to the query, and the value projection to after the attention
        k_proj, v_proj = (rearrange(module.weight, "(h d) r -> h d r", h=self.heads) for module in (self.k_proj, self.v_proj))
        queries = torch.cat((torch.einsum("bhqd,hdr->bhqr", content, k_proj), rotated), dim=-1)
        read = own._replace(values=own.keys)
        # the shared key's channels are averaged too, and dropped
        found = self.attend(queries, (read,), context)[..., : self.spec.latent]
        return torch.einsum("bhqr,hdr->bhqd", found, v_proj)


def filled(heads: Float[Tensor, "batch heads length channels"], most: int) -> Float[Tensor, "batch heads length most"]:
    """`heads` with zeros appended up to `most` channels, which change no product."""
    return heads if heads.shape[-1] == most else functional.pad(heads, (0, most - heads.shape[-1]))
