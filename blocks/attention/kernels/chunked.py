"""Attention by tiles of scores that fit into a CPU's caches.

Keys that causality or a window masks for all queries of a tile are skipped; keys that only padding or packing masks are
computed and masked. Memory is linear in the length, and with a window so is the work. The backward pass recomputes each tile
(Rabe and Staats 2021, arXiv 2112.05682). The kernel is a custom operator, so that a compiled layer calls it instead of
unrolling its loop.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.operator_arguments import pack, unpack
from pairform.blocks.attention.kernels.tiles.arithmetic import Tiles


def chunked(queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """Products are in the dtype of the queries, softcap and softmax in at least float32. The output of a fully masked query
    is the average of all values, as in `eager`; it contributes no gradient to queries and keys.
    """
    numbers, tensors = pack(call.mask)
    # the backward pass draws the same dropout again from the seed
    seed = torch.randint(2**62, (1,)) if call.dropout else None
    by_part = call.biases or (None,) * len(keys)
    # the biases that exist, and for each part whether it has one, from which `tiles` restores the Nones
    biases, biased = [bias for bias in by_part if bias is not None], [int(bias is not None) for bias in by_part]
    options = (biased, call.scale, call.softcap, call.dropout, seed, numbers, tensors)
    mixed: Tensor = operator(queries, list(keys), list(values), biases, *options)
    return mixed, None


INPUTS = (
    "Tensor queries, Tensor[] keys, Tensor[] values, Tensor[] biases, SymInt[] biased, float scale, float? softcap, "
    "float dropout, Tensor? seed, SymInt[] numbers, Tensor[] tensors"
)
"""The inputs of both operators, as torch declares them."""


def tiles(
    queries: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    biases: list[Tensor],
    biased: list[int],
    scale: float,
    softcap: float | None,
    dropout: float,
    seed: Tensor | None,
    numbers: list[int],
    tensors: list[Tensor],
) -> Tiles:
    given = iter(biases)
    by_part = tuple(next(given) if there else None for there in biased)
    call = AttentionCall(unpack(numbers, tensors), scale, softcap, dropout, biases=by_part)
    return Tiles(queries, tuple(keys), tuple(values), call, None if seed is None else int(seed))


@torch.library.custom_op("pairform::chunked_attention", mutates_args=(), schema=f"({INPUTS}) -> Tensor")
def operator(*inputs: Any) -> Tensor:
    return tiles(*inputs).forward()


@torch.library.custom_op(
    "pairform::chunked_attention_backward", mutates_args=(), schema=f"(Tensor gradient, {INPUTS}) -> Tensor[]"
)
def backward_operator(gradient: Tensor, *inputs: Any) -> list[Tensor]:
    return tiles(*inputs).backward(gradient)


@operator.register_fake
def _(queries: Tensor, *rest: Any) -> Tensor:
    # as the real output is allocated: queries are a transposed view, whose strides `empty_like` would keep
    return torch.empty_like(queries, memory_format=torch.contiguous_format)


@backward_operator.register_fake
def _(
    gradient: Tensor, queries: Tensor, keys: list[Tensor], values: list[Tensor], biases: list[Tensor], *rest: Any
) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (queries, *keys, *values, *biases)]


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    # numbers: biased, scale, softcap and dropout; places: the integers of the packed mask
    queries, keys, values, biases, *numbers, seed, places, tensors = inputs
    ctx.save_for_backward(queries, seed, *keys, *values, *biases, *tensors)
    ctx.parts, ctx.biases, ctx.numbers, ctx.places = len(keys), len(biases), numbers, places


def differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    queries, seed, *saved = ctx.saved_tensors
    sizes = [ctx.parts, ctx.parts, ctx.biases]
    keys, values, biases, tensors = shared_out(saved, sizes)
    found = backward_operator(gradient, queries, keys, values, biases, *ctx.numbers, seed, ctx.places, tensors)
    gradients = shared_out(found[1:], sizes)[:3]
    # one gradient for each of `INPUTS`, in their order; a list of tensors has a list
    return found[0], *gradients, *(None for _ in ctx.numbers), None, None, [None] * len(tensors)


def shared_out(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    """`tensors` split into lists of these sizes, and the rest."""
    ends = [0, *accumulate(sizes), len(tensors)]
    return [list(tensors[begin:end]) for begin, end in pairwise(ends)]


operator.register_autograd(differentiate, setup_context=remember)


@register_flop_formula(torch.ops.pairform.chunked_attention)
def flops(queries: torch.Size, keys: list[torch.Size], *_: Any, **__: Any) -> int:
    """Both products over all keys, as torch counts attention: masked keys count too."""
    # two products, with two operations for each multiplication and addition
    batch, heads, length, head_dim = queries
    return 4 * batch * heads * length * sum(part[2] for part in keys) * head_dim


@register_flop_formula(torch.ops.pairform.chunked_attention_backward)
def backward_flops(gradient: torch.Size, queries: torch.Size, keys: list[torch.Size], *_: Any, **__: Any) -> int:
    """Five products: scores again, and the gradients of weights, values, queries and keys."""
    return flops(queries, keys) * 5 // 2
