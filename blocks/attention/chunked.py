"""Attention a tile of scores at a time, small enough for a processor's caches, over only the keys that its queries may see.

Memory grows with the length and not with its square; a window's work too. Gradients compute each tile again (Rabe and Staats
2021, arXiv 2112.05682). It is an operator of its own, so that a compiled layer calls it instead of unrolling its loop.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pairform.blocks.attention.packing import pack, unpack
from pairform.blocks.attention.tiles import FEWEST as FEWEST
from pairform.blocks.attention.tiles import Tiles
from pairform.blocks.attention.work import Answer, Parts, Work
from pairform.blocks.context import Context


def chunked(
    queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, work: Work, context: Context
) -> Answer:
    """Softcap and softmax are in at least float32. A query with no key to attend to spreads evenly over its tile's keys."""
    numbers, tensors = pack(work.mask)
    seed = torch.randint(2**62, (1,)) if work.dropout else None
    mixed: Tensor = operator(queries, list(keys), list(values), work.scale, work.softcap, work.dropout, seed, numbers, tensors)
    return mixed, None


def tiles(inputs: tuple[Any, ...]) -> Tiles:
    queries, keys, values, scale, softcap, dropout, seed, numbers, tensors = inputs
    start = None if seed is None else int(seed)
    return Tiles(queries, tuple(keys), tuple(values), Work(unpack(numbers, tensors), scale, softcap, dropout), start)


@torch.library.custom_op("pairform::chunked_attention", mutates_args=())
def operator(
    queries: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: Tensor | None,
    numbers: list[int],
    tensors: list[Tensor],
) -> Tensor:
    return tiles((queries, keys, values, scale, softcap, dropout, seed, numbers, tensors)).forward()


@torch.library.custom_op("pairform::chunked_attention_backward", mutates_args=())
def backward_operator(
    gradient: Tensor,
    queries: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: Tensor | None,
    numbers: list[int],
    tensors: list[Tensor],
) -> list[Tensor]:
    found = tiles((queries, keys, values, scale, softcap, dropout, seed, numbers, tensors))
    return found.backward(gradient)


@operator.register_fake
def _(queries: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(queries, memory_format=torch.contiguous_format)


@backward_operator.register_fake
def _(gradient: Tensor, queries: Tensor, keys: list[Tensor], values: list[Tensor], *rest: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (queries, *keys, *values)]


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, keys, values, *numbers, seed, places, tensors = inputs
    ctx.save_for_backward(queries, seed, *keys, *values, *tensors)
    ctx.parts, ctx.numbers, ctx.places = len(keys), numbers, places


def differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    queries, seed, *saved = ctx.saved_tensors
    keys, values, tensors = saved[: ctx.parts], saved[ctx.parts : 2 * ctx.parts], saved[2 * ctx.parts :]
    found = backward_operator(gradient, queries, keys, values, *ctx.numbers, seed, ctx.places, tensors)
    own, of_keys, of_values = found[0], found[1 : 1 + ctx.parts], found[1 + ctx.parts :]
    return own, of_keys, of_values, *(None for _ in ctx.numbers), None, None, [None] * len(tensors)


operator.register_autograd(differentiate, setup_context=remember)


@register_flop_formula(torch.ops.pairform.chunked_attention)
def flops(queries: torch.Size, keys: list[torch.Size], *_: Any, **__: Any) -> int:
    """Both products over all keys, as torch counts attention, whatever a mask leaves out."""
    batch, heads, length, head_dim = queries
    return 4 * batch * heads * length * sum(part[2] for part in keys) * head_dim


@register_flop_formula(torch.ops.pairform.chunked_attention_backward)
def backward_flops(gradient: torch.Size, queries: torch.Size, keys: list[torch.Size], *_: Any, **__: Any) -> int:
    """Five products: scores again, and the gradients of weights, values, queries and keys."""
    return flops(queries, keys) * 5 // 2
