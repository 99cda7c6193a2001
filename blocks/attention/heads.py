"""Projections and options that every softmax attention shares."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from pairform.blocks.attention.demand import Demand
from pairform.blocks.attention.kernels import KERNELS, able, attend, choose
from pairform.blocks.attention.masks import JoinedMask, Mask
from pairform.blocks.attention.work import Work
from pairform.blocks.cache import KeyValues
from pairform.blocks.context import Context
from pairform.blocks.linear import Linear
from pairform.registry import (
    LIMIT,
    BlockSpec,
    PositiveFloat,
    PositiveInt,
    Probability,
    Problem,
    Sizes,
    Slot,
    build_block,
)


class AttentionSpec(BlockSpec):
    """heads queries share kv_heads keys and values: as many is MHA, fewer GQA (Ainslie et al. 2023), one MQA.

    kv_heads:  absent, as many as heads.
    head_dim:  absent, width / heads.
    scale:     multiplies q k; absent, head_dim ** -0.5.
    softcap:   bounds the scores (Gemma 2 report, arXiv 2408.00118, section 2).
    qk_norm:   normalises queries and keys along head_dim, before any rotation.
    bias:      of every projection, or of queries, keys and values alone (Qwen2, arXiv 2407.10671, section 2.2.1).
    """

    merged: ClassVar[bool] = False
    """Whether keys of two sequences come under one softmax."""

    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    scale: PositiveFloat | None = None
    softcap: PositiveFloat | None = None
    qk_norm: Annotated[BlockSpec, Slot("norm")] | None = None
    bias: bool | Literal["qkv"] = False
    dropout: Probability = 0.0
    kernel: Literal["auto", "eager", "sdpa", "chunked", "flex", "xformers", "flash"] = "auto"

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads ({self.kv_heads}) to divide heads ({self.heads})")
        if self.kernel != "auto" and (reason := KERNELS[self.kernel].refuses(self.demand)):
            raise ValueError(f"auto or one of {', '.join(able(self.demand))} as kernel: {self.kernel} {reason}")
        return self

    @property
    def demand(self) -> Demand:
        """What is asked of a kernel, as far as a spec tells."""
        return Demand(softcap=self.softcap is not None, merged=self.merged, head_dim=self.head_dim)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.heads * (self.head_dim or 1) >= LIMIT:
            yield Problem("heads", f"{self.heads} heads of {self.head_dim}", f"fewer than {LIMIT:,} query channels")
        if self.head_dim is None and sizes.width % self.heads:
            yield Problem(
                "heads", f"{self.heads} heads in a width of {sizes.width}", "heads that divide the width", "Or set head_dim."
            )


class AttentionHeads(nn.Module):
    """q, k, v and o projections around a kernel. Subclasses say what is read and under which mask."""

    def __init__(self, spec: AttentionSpec, sizes: Sizes, key_width: int) -> None:
        super().__init__()
        self.heads = spec.heads
        self.kv_heads = spec.kv_heads or spec.heads
        self.head_dim = spec.head_dim or sizes.width // spec.heads
        self.scale = spec.scale or self.head_dim**-0.5
        self.softcap = spec.softcap
        self.dropout = spec.dropout
        self.kernel: str = spec.kernel
        self.demand = spec.demand
        self.q_proj = Linear(sizes.width, self.heads * self.head_dim, bias=bool(spec.bias))
        self.k_proj = Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        self.v_proj = Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        self.o_proj = Linear(self.heads * self.head_dim, sizes.width, bias=spec.bias is True)
        if spec.qk_norm is not None:
            self.q_norm = build_block(spec.qk_norm, Sizes(self.head_dim), "norm")
            self.k_norm = build_block(spec.qk_norm, Sizes(self.head_dim), "norm")
        self.normed = spec.qk_norm is not None

    def use_kernel(self, kernel: str) -> None:
        """Choose another kernel after building; one that cannot do this block's work is an error."""
        choose(kernel, self.demand)
        self.kernel = kernel

    def queries(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length head_dim"]:
        heads = rearrange(self.q_proj(hidden), "b l (h d) -> b h l d", d=self.head_dim)
        return self.q_norm(heads) if self.normed else heads

    def keys_values(self, hidden: Float[Tensor, "batch length key_width"]) -> tuple[Tensor, Tensor]:
        """Both `[batch, kv_heads, length, head_dim]`."""
        return self.project(hidden, self.k_proj, self.v_proj)

    def project(self, hidden: Tensor, k_proj: nn.Linear, v_proj: nn.Linear) -> tuple[Tensor, Tensor]:
        """Keys and values by these projections."""
        keys = rearrange(k_proj(hidden), "b l (h d) -> b h l d", d=self.head_dim)
        values = rearrange(v_proj(hidden), "b l (h d) -> b h l d", d=self.head_dim)
        return (self.k_norm(keys) if self.normed else keys), values

    def mix(
        self, queries: Tensor, parts: Sequence[tuple[KeyValues, Mask]], context: Context
    ) -> Float[Tensor, "batch length width"]:
        """Attend to `parts` as one, record the weights on each where they are asked for, project back to the width."""
        mask = JoinedMask(tuple(mask for _, mask in parts))
        work = Work(mask, self.scale, self.softcap, self.dropout if self.training else 0.0, weights=context.weights is not None)
        keys, values = tuple(held.keys for held, _ in parts), tuple(held.values for held, _ in parts)
        mixed, weights = attend(self.kernel, queries, keys, values, work, context)
        if weights is not None:
            for part, own in zip(
                mask.parts, torch.split(weights, [part.key_length for part in mask.parts], dim=-1), strict=True
            ):
                context.record(part.reads, own)
        projected: Tensor = self.o_proj(rearrange(mixed, "b h l d -> b l (h d)"))
        return projected
