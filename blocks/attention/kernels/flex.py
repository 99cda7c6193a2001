"""torch's flex_attention: any mask and a softcap in one compiled kernel, which skips fully masked blocks of scores.

On a GPU only. On a CPU, torch 2.13's own kernel is wrong by up to 0.8, or NaN, and not reproducible, where the length is 8
modulo 16 and head_dim is 8 or 16, also in float32; no shape is documented to be right.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.biases import average_fully_masked, join
from pairform.blocks.attention.kernels.flex_block_mask import SIZE, Lists, blocks_of
from pairform.blocks.functional.constants import constant

Call: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Lists], Tensor]
"""Queries, keys and values `[batch, heads, length, head_dim]`, and the two parts of `Blocks`."""
Allowed: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Bool[Tensor, "..."]]
"""flex_attention's `mask_mod`: whether a query may attend to a key, by batch, head, query and key."""


def flex(queries: Float[Tensor, "batch heads q head_dim"], keys: Parts, values: Parts, call: AttentionCall) -> Output:
    """FlexAttention (Dong et al. 2024, arXiv 2412.05496). Each kind of layer is compiled once, for all masks."""
    heads = (queries, join(keys, 2), join(values, 2))
    blocks = call.mask.once("flex", lambda: blocks_of(call.mask, len(queries), queries.device))
    if torch.compiler.is_compiling():
        mixed = call_of(*constants(call.scale, call.softcap))(*heads, *blocks)
    else:
        ones = tuple(size == 1 for size in (len(queries), queries.shape[2], heads[1].shape[2]))  # torch specialises on size 1
        layer = (queries.shape[1], heads[1].shape[1], queries.shape[3], queries.dtype, queries.device)
        mixed = compiled(call.scale, call.softcap, (*layer, torch.is_grad_enabled(), ones))(*heads, *blocks)
    return average_fully_masked(mixed, values, call.mask), None


def constants(*numbers: float | None) -> tuple[Any, ...]:
    """The values of numbers that torch.compile made symbolic, as in layers compiled for all lengths; flex needs constants."""
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return tuple(None if number is None else guard_scalar(number) for number in numbers)


def allowed_by(mask_table: Tensor) -> Allowed:
    """The `mask_mod` that reads the table of `Blocks`."""

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        low, high, split, of_query = (mask_table[query, batch, column] for column in range(4))
        # own keys from `low` to `high` and all keys of the source, if they are in the query's document
        return (((low <= key) & (key <= high)) | (key >= split)) & (of_query == mask_table[key, batch, 4])

    return mask


def call_of(scale: float, softcap: float | None) -> Call:
    """The function to compile. Scale and softcap are constants in it, since flex does not accept symbolic numbers."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    def cap(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    def call(queries: Tensor, keys: Tensor, values: Tensor, mask_table: Tensor, lists: Lists) -> Tensor:
        lengths = (queries.shape[2], keys.shape[2])
        block_mask = BlockMask(lengths, *lists, BLOCK_SIZE=(SIZE, SIZE), mask_mod=allowed_by(mask_table))
        score_mod = None if softcap is None else cap
        return flex_attention(
            queries, keys, values, score_mod, block_mask, scale, enable_gqa=True, kernel_options={"BACKEND": "TRITON"}
        )  # by default there is a separate kernel for short queries, which would be compiled too

    return call


@cache
def compiled(scale: float, softcap: float | None, kind: object) -> Call:
    """The compiled call for one kind of layer. Lengths and batch size are dynamic, so that new ones do not recompile. But torch
    compiles fewer than 128 queries apart from more: it guards on that even where both take the same kernel."""
    call = call_of(scale, softcap)
    call.__code__ = call.__code__.replace()  # torch counts recompilations by code object: each kind has its own
    run = torch.compile(call, fullgraph=True)

    def run_marked(queries: Tensor, keys: Tensor, values: Tensor, mask_table: Tensor, lists: Lists) -> Tensor:
        for tensor in (queries, keys, values):
            torch._dynamo.maybe_mark_dynamic(tensor, (0, 2))
        torch._dynamo.maybe_mark_dynamic(mask_table, (0, 1))
        for tensor in lists:
            torch._dynamo.maybe_mark_dynamic(tensor, (0, *range(2, tensor.ndim)))
        return run(queries, keys, values, mask_table, lists)

    return run_marked


@constant
def lacks(device: str) -> str | None:
    """What is missing for torch to compile for a GPU."""
    return None if find_spec("triton") else "needs triton, which is not installed"
