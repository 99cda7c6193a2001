"""Attention kernels by name. `eager` is the reference for all others; `auto` takes the first that can do the work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.context import Context
from pairform.blocks.precision import wide
from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class Work:
    """One attention call beside its tensors. Scores are `softcap * tanh(q k scale / softcap)` where softcap is set."""

    mask: JoinedMask
    scale: float
    softcap: float | None = None
    dropout: float = 0.0
    weights: bool = False


Answer: TypeAlias = tuple[Tensor, Tensor | None]
Parts: TypeAlias = tuple[Tensor, ...]
"""Keys or values of the sequences that are read as one (own tokens, a source), `[batch, kv_heads, k, head_dim]` each."""
Run: TypeAlias = Callable[[Tensor, Parts, Parts, Work, Context], Answer]


@dataclass(frozen=True)
class Kernel:
    """`run` takes q `[batch, heads, q, d]`, parts of k and v `[batch, kv_heads, k, d]` and gives `[batch, heads, q, d]`."""

    run: Run
    softcap: bool
    weights: bool

    def refuses(self, *, softcap: bool, weights: bool) -> str | None:
        """Why this kernel cannot do the work, or None."""
        if softcap and not self.softcap:
            return "a softcap"
        if weights and not self.weights:
            return "attention weights as an output"
        return None


def eager(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    work: Work,
    context: Context,
) -> Answer:
    """Scores held whole; softmax in float32. A query with no key to attend to spreads evenly over all keys.

    Parts are joined as scores: joining keys and values would copy a long source at each step of decoding.
    Masked scores are lowered by a sum, as in sdpa and in transformers, so that gradients of such a query agree too.
    """
    kv_heads, length = keys[0].shape[1], queries.shape[2]
    grouped = rearrange(queries, "b (kv g) q d -> b kv (g q) d", kv=kv_heads)  # so that no key is repeated
    scores = join(tuple(grouped @ part.transpose(-1, -2) for part in keys), -1) * work.scale
    scores = rearrange(scores, "b kv (g q) k -> b (kv g) q k", q=length)
    if work.softcap is not None:
        scores = torch.tanh(scores / work.softcap) * work.softcap
    bias = bias_of(work.mask, queries, context)
    if bias is not None:
        scores = scores + bias
    weights = functional.dropout(wide(scores).softmax(-1).to(queries.dtype), work.dropout)
    shares = rearrange(weights, "b (kv g) q k -> b kv (g q) k", kv=kv_heads)
    by_part = zip(torch.split(shares, [part.shape[2] for part in values], dim=-1), values, strict=True)
    mixed = reduce(torch.add, (share @ part for share, part in by_part))
    return rearrange(mixed, "b kv (g q) d -> b (kv g) q d", q=length), weights


def sdpa(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    work: Work,
    context: Context,
) -> Answer:
    """torch's fused scaled_dot_product_attention.

    A query with no key to attend to is set to zero and unmasked, which spreads it evenly too, and is a constant to training:
    under a mask's huge numbers the fused backward loses the count of keys, and gradients grow by it in each layer.
    """
    bias = bias_of(work.mask, queries, context)
    if bias is not None and work.mask.padded:
        lost = context.once(("lost", work.mask.key()), partial(keyless, bias))
        queries, bias = queries.masked_fill(lost, 0), bias.masked_fill(lost, 0)
    mixed = functional.scaled_dot_product_attention(
        queries,
        join(keys, 2),
        join(values, 2),
        attn_mask=bias,
        dropout_p=work.dropout,
        scale=work.scale,
        enable_gqa=queries.shape[1] != keys[0].shape[1],
    )
    return mixed, None


def join(parts: Parts, dim: int) -> Tensor:
    """Parts as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def keyless(bias: Tensor) -> Tensor:
    """Which queries have no key to attend to."""
    return bias.ne(0).all(-1, keepdim=True)


def bias_of(mask: JoinedMask, queries: Tensor, context: Context) -> Tensor | None:
    """What is added to scores, `[batch or 1, 1, q, k]`: the lowest number where a query may not attend. None for nothing."""

    def make() -> Tensor | None:
        allowed = mask.dense(queries.device)
        if allowed is None:
            return None
        return torch.zeros(allowed.shape, dtype=queries.dtype, device=queries.device).masked_fill(
            ~allowed, torch.finfo(queries.dtype).min
        )

    return context.once(("bias", queries.dtype, mask.key()), make)


KERNELS: Mapping[str, Kernel] = {
    "sdpa": Kernel(sdpa, softcap=False, weights=False),
    "eager": Kernel(eager, softcap=True, weights=True),
}
"""Fastest first."""


def choose(name: str, *, softcap: bool, weights: bool) -> Kernel:
    """The kernel called `name`, or for "auto" the fastest that can do the work. One that cannot is an error."""
    able = {known: kernel for known, kernel in KERNELS.items() if not kernel.refuses(softcap=softcap, weights=weights)}
    if name == "auto":
        return next(iter(able.values()))
    if name not in KERNELS:
        raise InputError(Problem("kernel", repr(name), f"auto or one of {', '.join(KERNELS)}"))
    if name not in able:
        reason = KERNELS[name].refuses(softcap=softcap, weights=weights)
        raise InputError(Problem("kernel", repr(name), f"one that can do {reason}: {', '.join(able)}"))
    return able[name]


def attend(name: str, queries: Tensor, keys: Parts, values: Parts, work: Work, context: Context) -> Answer:
    """Run the kernel called `name`, or for "auto" the fastest that can do the work."""
    kernel = choose(name, softcap=work.softcap is not None, weights=work.weights)
    return kernel.run(queries, keys, values, work, context)
