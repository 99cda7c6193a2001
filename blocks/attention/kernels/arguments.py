"""What every attention kernel is given, and what several of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.context import Context


@dataclass(frozen=True)
class Work:
    """One attention call beside its tensors. Scores are `softcap * tanh(q k scale / softcap)` where softcap is set.

    biases: what is added to them, by part: `by_distance` reads it; None adds nothing.
    """

    mask: JoinedMask
    scale: float
    softcap: float | None = None
    dropout: float = 0.0
    weights: bool = False
    biases: tuple[Float[Tensor, "heads distances"] | None, ...] = ()

    @property
    def biased(self) -> bool:
        return any(bias is not None for bias in self.biases)


Answer: TypeAlias = tuple[Tensor, Tensor | None]
Parts: TypeAlias = tuple[Tensor, ...]
"""Keys or values of the sequences that are read as one (own tokens, a source), `[batch, kv_heads, k, head_dim]` each."""
Run: TypeAlias = Callable[[Tensor, Parts, Parts, Work, Context], Answer]


def join(parts: Parts, dim: int) -> Tensor:
    """Parts as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def product(rows: Float[Tensor, "batch kv_heads r x"], part: Float[Tensor, "sources kv_heads x y"]) -> Tensor:
    """`rows @ part`, where neighbouring rows of the batch (beams) may share what they read: it is read once for all."""
    if len(rows) == len(part):
        return rows @ part
    beams = len(rows) // len(part)
    together = rearrange(rows, "(b n) kv r x -> b kv (n r) x", n=beams) @ part
    return rearrange(together, "b kv (n r) y -> (b n) kv r y", n=beams)


def products(queries: Tensor, keys: Parts) -> Float[Tensor, "batch kv_heads groups_times_q k"]:
    """Queries times the keys of all parts; the heads that share keys stand one after the other, so that no key is repeated."""
    grouped = rearrange(queries, "b (kv g) q d -> b kv (g q) d", kv=keys[0].shape[1])
    return join(tuple(product(grouped, part.transpose(-1, -2)) for part in keys), -1)


def weighted(weights: Float[Tensor, "batch kv_heads groups_times_q k"], values: Parts, length: int) -> Tensor:
    """Weights, as `products` orders them, times the values of all parts: `[batch, heads, length, head_dim]`."""
    shares = torch.split(weights, [part.shape[2] for part in values], dim=-1)
    mixed = reduce(torch.add, (product(share, part) for share, part in zip(shares, values, strict=True)))
    return rearrange(mixed, "b kv (g q) d -> b (kv g) q d", q=length)


def bias_of(mask: JoinedMask, like: Tensor, context: Context) -> Tensor | None:
    """What is added to scores of the device and dtype of `like`, `[batch or 1, 1, q, k]`: the lowest number where a query may
    not attend. None for nothing.
    """

    def make() -> Tensor | None:
        return lowest(mask.dense(like.device), like.dtype)

    return context.once(("bias", like.dtype, mask.key()), make)


def lowest(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The lowest number of `dtype` where nothing is allowed, else zero."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def by_distance(numbers: Float[Tensor, "heads distances"], queries: int, keys: int) -> Float[Tensor, "heads queries keys"]:
    """Number `j - i + queries - 1` for query i and key j, `queries + keys - 1` numbers in all: every diagonal has one."""
    return numbers.unfold(-1, keys, 1).flip(-2)


def of_diagonals(scores: Float[Tensor, "heads queries keys"]) -> Float[Tensor, "heads distances"]:
    """The sum of every diagonal, as `by_distance` numbers them: its gradient."""
    heads, queries, keys = scores.shape
    moved = functional.pad(scores.flip(-2), (0, queries)).flatten(1)[:, : queries * (queries + keys - 1)]  # row i, by i places
    return moved.view(heads, queries, -1).sum(1)


def with_bias(hidden: Tensor | None, work: Work, like: Tensor) -> Tensor | None:
    """What `bias_of` says, and the work's own bias where a query may attend; `like` has the heads `[batch, heads, ...]`."""
    if not work.biased:
        return hidden
    sizes = [(work.mask.lengths[0], part.key_length) for part in work.mask.parts]
    nothing = like.new_zeros(())
    parts = [
        nothing.expand(like.shape[1], *size) if numbers is None else by_distance(numbers.to(like.dtype), *size)
        for numbers, size in zip(work.biases, sizes, strict=True)
    ]
    bias = join(tuple(parts), -1)[None]
    return bias if hidden is None else torch.where(hidden == 0, bias, hidden)


def spread(mixed: Tensor, values: Parts, work: Work, context: Context) -> Tensor:
    """`mixed` with the mean of all values for a query that sees no key, as in `eager`, whatever a kernel returns for it."""
    lost = context.once(("lost queries", work.mask.key()), lambda: work.mask.lost(mixed.device))
    if lost is None:
        return mixed
    count = sum(part.shape[2] for part in values)
    wide = torch.promote_types(mixed.dtype, torch.float32)  # a sum may exceed float16
    even = (reduce(torch.add, (part.sum(2, keepdim=True, dtype=wide) for part in values)) / count).to(mixed.dtype)
    return torch.where(lost, even.repeat_interleave(mixed.shape[1] // even.shape[1], dim=1), mixed)
