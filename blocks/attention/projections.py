"""Projections and options that all softmax attention blocks share."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.dispatch import KERNELS, Demand, able, attend, choose, prepare
from pairform.blocks.attention.masks import FULL, JoinedMask, Mask
from pairform.blocks.context import Context
from pairform.blocks.functional.linear import Linear
from pairform.registry import (
    LIMIT,
    BlockSpec,
    PositiveFloat,
    PositiveInt,
    Probability,
    Problem,
    Scales,
    Sizes,
    Slot,
    build_block,
)


class AttentionSpec(BlockSpec):
    """Options of every softmax attention."""

    merged: ClassVar[bool] = False
    """Whether one softmax covers the keys of two sequences."""

    heads: Annotated[PositiveInt, Scales("heads")] = Field(examples=[8], description="Number of query heads.")
    kv_heads: Annotated[PositiveInt | None, Scales("kv_heads")] = Field(
        default=None,
        description="Number of key and value heads; divides `heads`. As many as `heads` is multi-head attention, fewer is GQA "
        "(Ainslie et al. 2023), one is MQA. Default: `heads`.",
    )
    head_dim: Annotated[PositiveInt | None, Scales("head_dim")] = Field(
        default=None, description="Channels of a head. Default: `width / heads`."
    )
    scale: Annotated[PositiveFloat | None, Scales("scores")] = Field(
        default=None, description="Factor on the products of queries and keys. Default: `head_dim ** -0.5`."
    )
    softcap: PositiveFloat | None = Field(
        default=None,
        description="Limit of the scores' absolute value, as `softcap * tanh(scores / softcap)` (Gemma 2 report, arXiv "
        "2408.00118, section 2). Default: none.",
    )
    qk_norm: Annotated[BlockSpec, Slot("norm")] | None = Field(
        default=None, description="Norm of queries and keys, before any rotation. Default: none."
    )
    qk_norm_span: Literal["head", "width"] = Field(
        default="head",
        description="Channels that `qk_norm` normalises together. head: those of each head; width: those of all heads (OLMo 2, "
        "arXiv 2501.00656, section 3.1).",
    )
    value_norm: Annotated[BlockSpec, Slot("norm")] | None = Field(
        default=None, description="Norm of values along `head_dim`; Gemma 4's has no weight. Default: none."
    )
    keys_as_values: bool = Field(
        default=False,
        description="Use the key projection, before `qk_norm` and any rotation, as values too: there is no value projection "
        "(Gemma 4's global layers).",
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
        default="auto",
        description="Implementation. auto: the fastest one that supports the options and the device. xformers and flash have "
        "not been tested on a GPU, so auto does not choose them.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads ({self.kv_heads}) to divide heads ({self.heads})")
        if self.kernel != "auto" and (reason := KERNELS[self.kernel].refuses(self.demand)):
            raise ValueError(f"auto or one of {', '.join(able(self.demand))} as kernel: {self.kernel} {reason}")
        return self

    @property
    def has_keys(self) -> bool:
        """Whether the block projects keys and values, instead of those of another layer."""
        return True

    @property
    def demand(self) -> Demand:
        """What a kernel must support, as far as the spec determines it."""
        merged = self.merged or self.sinks
        return Demand(softcap=self.softcap is not None, merged=merged, bias=self.sinks, head_dim=self.head_dim)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.heads * (self.head_dim or 1) >= LIMIT:
            yield Problem("heads", f"{self.heads} heads of {self.head_dim}", f"fewer than {LIMIT:,} query channels")
        if self.head_dim is None and sizes.width % self.heads:
            yield Problem(
                "heads", f"{self.heads} heads in a width of {sizes.width}", "heads that divide the width", "Or set head_dim."
            )


class Read(NamedTuple):
    """Keys and values of one sequence, their mask, and the score bias by distance between query and key."""

    keys: Float[Tensor, "batch kv_heads k head_dim"]
    values: Float[Tensor, "batch kv_heads k value_dim"]
    mask: JoinedMask
    bias: Float[Tensor, "heads distances"] | None = None


class AttentionHeads(nn.Module):
    """q, k, v and o projections around an attention kernel. Subclasses choose the keys, values and masks.

    scored: names of the linear layers that only affect attention scores: those of queries and keys.
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
        prepare(spec.kernel)
        self.demand = spec.demand
        self.value_dim = self.head_dim
        # before o_proj, since it may set value_dim
        self.add_projections(spec, sizes, key_width)
        self.o_proj = Linear(self.heads * self.value_dim, sizes.width, bias=spec.bias is True)
        self.gate_proj = None
        if spec.gate is not None:
            gates = self.heads * (self.value_dim if spec.gate == "elementwise" else 1)
            self.gate_proj = Linear(sizes.width, gates, bias=bool(spec.bias))
        self.sinks = nn.Parameter(torch.empty(self.heads)) if spec.sinks else None

    def add_projections(self, spec: AttentionSpec, sizes: Sizes, key_width: int) -> None:
        """Add the projections of queries, keys and values; values have `value_dim` channels per head."""
        self.q_proj = Linear(sizes.width, self.heads * self.head_dim, bias=bool(spec.bias))
        self.normed: Literal["head", "width"] | None = None if spec.qk_norm is None else spec.qk_norm_span
        heads, kv_heads = (self.heads, self.kv_heads) if self.normed == "width" else (1, 1)
        if spec.qk_norm is not None:
            self.q_norm = build_block(spec.qk_norm, Sizes(heads * self.head_dim), "norm")
        if not spec.has_keys:
            return
        self.k_proj = Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        self.v_proj = None if spec.keys_as_values else Linear(key_width, self.kv_heads * self.head_dim, bias=bool(spec.bias))
        if spec.qk_norm is not None:
            self.k_norm = build_block(spec.qk_norm, Sizes(kv_heads * self.head_dim), "norm")
        self.v_norm = None if spec.value_norm is None else build_block(spec.value_norm, Sizes(self.head_dim), "norm")

    def check_kernel(self, kernel: str) -> None:
        """Raise `InputError` if the kernel of this name does not support the block."""
        choose(kernel, self.demand)
        prepare(kernel)

    def queries(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length head_dim"]:
        batch, length, _ = hidden.shape
        projected = self.q_proj(hidden)
        if self.normed == "width":
            projected = self.q_norm(projected)
        # [batch, length, width] -> [batch, heads, length, head_dim]
        heads: Tensor = projected.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        return self.q_norm(heads) if self.normed == "head" else heads

    def keys_values(
        self, hidden: Float[Tensor, "batch length key_width"], k_proj: nn.Linear | None = None, v_proj: nn.Linear | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values, both `[batch, kv_heads, length, head_dim]`, by the block's projections or by the given ones.

        With `keys_as_values` there is no value projection, neither the block's nor a given one.
        """
        # the sizes are spelt out, since -1 would be ambiguous for an empty batch: a vision tower runs on no images
        shape = (*hidden.shape[:2], self.kv_heads, self.head_dim)
        projected = (self.k_proj if k_proj is None else k_proj)(hidden)
        keys = projected.view(shape).transpose(1, 2)
        project = self.v_proj if v_proj is None else v_proj
        values = keys if project is None else project(hidden).view(shape).transpose(1, 2)
        if self.normed == "head":
            keys = self.k_norm(keys)
        elif self.normed == "width":
            keys = self.k_norm(projected).view(shape).transpose(1, 2)
        return keys, (values if self.v_norm is None else self.v_norm(values))

    def attend(
        self, queries: Float[Tensor, "batch heads q head_dim"], reads: tuple[Read, ...], context: Context
    ) -> Float[Tensor, "batch heads q head_dim"]:
        """Attention to all sequences in `reads` with one softmax.

        Queries already carry their positions. If the caller asked for attention weights, those on each sequence are recorded in
        the context.
        """
        if self.sinks is not None:
            reads = (*reads, sink(self.sinks, reads[0], context))
        keys, values, masks, biases = zip(*reads, strict=True)
        mask = masks[0]
        if len(masks) > 1:  # layers with the same masks share one, and with it the kernel's choice and form of it
            parts = tuple(part for mask in masks for part in mask.parts)
            # by identity: the pass's memo keeps the masks alive, so that no id is reused
            mask = context.once(("joined", *map(id, masks)), lambda: JoinedMask(parts))
        call = AttentionCall(
            mask,
            self.scale,
            self.softcap,
            self.dropout if self.training else 0.0,
            weights=context.weights is not None,
            biases=() if biases.count(None) == len(biases) else biases,
        )
        mixed, weights = attend(self.kernel, queries, keys, values, call)
        if weights is not None and context.weights is not None:
            shares = torch.split(weights, [part.key_length for part in mask.parts], dim=-1)
            for part, own in zip(mask.parts, shares, strict=True):
                if part.reads != "sink":
                    context.weights[part.reads, context.place] = own
        return mixed

    def output(
        self, mixed: Float[Tensor, "batch heads length head_dim"], hidden: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        """Merge the heads, multiply by the gates computed from `hidden` if there are any, and project back to the width."""
        # [batch, length, heads * value_dim]
        merged = mixed.transpose(1, 2).flatten(2)
        if self.gate_proj is not None:
            gates = self.gate_proj(hidden).sigmoid()
            # headwise: one gate for the value_dim channels of a head; elementwise: repeated once
            merged = merged * gates.repeat_interleave(merged.shape[-1] // gates.shape[-1], dim=-1)
        projected: Tensor = self.o_proj(merged)
        return projected


def sink(scores: Float[Tensor, " heads"], other: Read, context: Context) -> Read:
    """One more key that every query attends to, as in gpt-oss. Its score is a learned number per head, its value zero."""
    length = other.mask.lengths[0]
    mask = context.once(("sink", length), lambda: JoinedMask((Mask(FULL, 0, length, 0, 1, reads="sink"),)))
    # a key of zeros scores 0, also after scale and softcap, so the bias alone is the score
    keys, values = torch.zeros_like(other.keys[:, :, :1]), torch.zeros_like(other.values[:, :, :1])
    # one key has `length` distances to the queries, all with the same bias
    return Read(keys, values, mask, scores[:, None].expand(-1, length))
