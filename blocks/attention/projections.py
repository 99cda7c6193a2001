"""Projections and options that every softmax attention shares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from pairform.blocks.attention.kernels.arguments import Work
from pairform.blocks.attention.kernels.capabilities import Demand
from pairform.blocks.attention.kernels.dispatch import KERNELS, able, attend
from pairform.blocks.attention.mask_spec import FULL
from pairform.blocks.attention.masks import JoinedMask, Mask
from pairform.blocks.cache import KeyValues
from pairform.blocks.context import Context
from pairform.blocks.functional.linear import Linear
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
    """Options of every softmax attention."""

    merged: ClassVar[bool] = False
    """Whether keys of two sequences come under one softmax."""

    heads: PositiveInt = Field(examples=[8], description="Number of query heads.")
    kv_heads: PositiveInt | None = Field(
        default=None,
        description="Number of key and value heads; divides `heads`. As many as `heads` is multi-head attention, fewer is GQA "
        "(Ainslie et al. 2023), one is MQA. Default: `heads`.",
    )
    head_dim: PositiveInt | None = Field(default=None, description="Channels of a head. Default: `width / heads`.")
    scale: PositiveFloat | None = Field(
        default=None, description="Factor on the products of queries and keys. Default: `head_dim ** -0.5`."
    )
    softcap: PositiveFloat | None = Field(
        default=None,
        description="Bound of the scores' absolute value, as `softcap * tanh(scores / softcap)` (Gemma 2 report, arXiv "
        "2408.00118, section 2). Default: none.",
    )
    qk_norm: Annotated[BlockSpec, Slot("norm")] | None = Field(
        default=None, description="Norm of queries and keys along `head_dim`, before any rotation. Default: none."
    )
    bias: bool | Literal["qkv"] = Field(
        default=False,
        description="Add a learned bias to every projection, or with `qkv` to those of queries, keys and values only (Qwen2, "
        "arXiv 2407.10671, section 2.2.1).",
    )
    gate: Literal["elementwise", "headwise"] | None = Field(
        default=None,
        description="Multiply the output of attention by a sigmoid of the hidden states, per channel or per head (Qiu et al. "
        "2025, arXiv 2505.06708, section 2.2). Default: none.",
    )
    sinks: bool = Field(
        default=False, description="Learn a score per head for attending to nothing (gpt-oss, arXiv 2508.10925, section 2.2)."
    )
    dropout: Probability = Field(default=0.0, description="Dropout rate on the attention weights.")
    kernel: Literal["auto", "eager", "sdpa", "chunked", "flex", "xformers", "flash"] = Field(
        default="auto", description="Implementation. auto: the fastest one that supports the options and the device."
    )

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
        merged = self.merged or self.sinks
        return Demand(softcap=self.softcap is not None, merged=merged, bias=self.sinks, head_dim=self.head_dim)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.heads * (self.head_dim or 1) >= LIMIT:
            yield Problem("heads", f"{self.heads} heads of {self.head_dim}", f"fewer than {LIMIT:,} query channels")
        if self.head_dim is None and sizes.width % self.heads:
            yield Problem(
                "heads", f"{self.heads} heads in a width of {sizes.width}", "heads that divide the width", "Or set head_dim."
            )


@dataclass(frozen=True)
class Read:
    """Keys and values of one sequence, which of them each query may see, and what is added to its scores, by distance."""

    held: KeyValues
    mask: Mask
    bias: Float[Tensor, "heads distances"] | None = None


class AttentionHeads(nn.Module):
    """q, k, v and o projections around a kernel. Subclasses say what is read and under which mask.

    scored: the linear maps whose output counts in scores alone: those of queries and keys.
    """

    scored: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj")

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
        self.value_dim = self.head_dim
        self.add_projections(spec, sizes, key_width)
        self.o_proj = Linear(self.heads * self.value_dim, sizes.width, bias=spec.bias is True)
        self.gate_proj = None
        if spec.gate is not None:
            gates = self.heads * (self.value_dim if spec.gate == "elementwise" else 1)
            self.gate_proj = Linear(sizes.width, gates, bias=bool(spec.bias))
        self.sinks = nn.Parameter(torch.empty(self.heads)) if spec.sinks else None

    def add_projections(self, spec: AttentionSpec, sizes: Sizes, key_width: int) -> None:
        """What makes queries, keys and values; these have `value_dim` channels."""
        self.q_proj = Linear(sizes.width, self.heads * self.head_dim, bias=bool(spec.bias))
        self.k_proj = Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        self.v_proj = Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        if spec.qk_norm is not None:
            self.q_norm = build_block(spec.qk_norm, Sizes(self.head_dim), "norm")
            self.k_norm = build_block(spec.qk_norm, Sizes(self.head_dim), "norm")
        self.normed = spec.qk_norm is not None

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
        self, hidden: Float[Tensor, "batch length width"], queries: Tensor, reads: Sequence[Read], context: Context
    ) -> Float[Tensor, "batch length width"]:
        """Attend to `reads` as one and project back to the width. hidden: what the queries were projected from."""
        return self.project_back(hidden, self.attended(queries, reads, context))

    def attended(
        self, queries: Float[Tensor, "batch heads q head_dim"], reads: Sequence[Read], context: Context
    ) -> Float[Tensor, "batch heads q head_dim"]:
        """What the queries find, with the weights on each sequence recorded where they are asked for."""
        if self.sinks is not None:
            reads = (*reads, sink(self.sinks, queries.shape[2], reads[0].held))
        mask = JoinedMask(tuple(read.mask for read in reads))
        dropout = self.dropout if self.training else 0.0
        wanted = context.weights is not None
        biases = tuple(read.bias for read in reads)
        work = Work(mask, self.scale, self.softcap, dropout, weights=wanted, biases=biases)
        keys, values = tuple(read.held.keys for read in reads), tuple(read.held.values for read in reads)
        mixed, weights = attend(self.kernel, queries, keys, values, work, context)
        if weights is not None:
            own = torch.split(weights, [part.key_length for part in mask.parts], dim=-1)
            for part, seen in zip(mask.parts, own, strict=True):
                if part.reads != "sink":
                    context.record(part.reads, seen)
        return mixed

    def project_back(
        self, hidden: Float[Tensor, "batch length width"], mixed: Float[Tensor, "batch heads length head_dim"]
    ) -> Float[Tensor, "batch length width"]:
        """All heads as one hidden state, behind their gates."""
        found = rearrange(mixed, "b h l d -> b l (h d)")
        if self.gate_proj is not None:
            gates = self.gate_proj(hidden).sigmoid()
            found = found * gates.repeat_interleave(found.shape[-1] // gates.shape[-1], dim=-1)
        projected: Tensor = self.o_proj(found)
        return projected


def sink(scores: Float[Tensor, " heads"], length: int, beside: KeyValues) -> Read:
    """One key that each of `length` queries sees: its score is the head's own number, and its value nothing."""
    nothing = KeyValues(torch.zeros_like(beside.keys[:, :, :1]), torch.zeros_like(beside.values[:, :, :1]))
    return Read(nothing, Mask(FULL, 0, length, 0, 1, reads="sink"), scores[:, None].expand(-1, length))
