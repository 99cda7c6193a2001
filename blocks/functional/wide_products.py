"""Products in half precision on CPUs with slow or no instructions for them, computed in float32.

Without instructions, oneDNN and torch multiply bfloat16 and float16 ten to thirty times as slowly as float32. Here tiles of
both matrices are widened to float32 and multiplied, and sums are rounded once, at the end: weights stay in half precision, and
at most three tiles are in float32. For a few rows, which are limited by reading the weight, torch's own product is faster.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

ROWS, COLUMNS, INNER = 1024, 1024, 2048
"""The largest tile: of rows, of columns, and of the products that one sum adds up. Larger ones are no faster."""


def multiply(rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ columns^T + bias` by tiles."""
    (count, inner), width = rows.shape, len(columns)
    product = rows.new_empty(count, width)
    sizes = min(ROWS, count), min(COLUMNS, width), min(INNER, inner)
    left, right, sums = (torch.empty(one * other) for one, other in ((sizes[0], sizes[2]), sizes[1:], sizes[:2]))
    for right_of in range(0, width, COLUMNS):
        some = columns[right_of : right_of + COLUMNS]
        held = None if inner > INNER else widened(right, some)  # else each tile of rows widens it again, in pieces
        for below in range(0, count, ROWS):
            ours = rows[below : below + ROWS]
            total = sums[: len(ours) * len(some)].view(len(ours), len(some))
            for begin in range(0, inner, INNER):
                place = slice(begin, begin + INNER)
                mine, theirs = widened(left, ours[:, place]), widened(right, some[:, place]) if held is None else held
                if begin:
                    total.addmm_(mine, theirs.T)
                elif bias is None:
                    torch.mm(mine, theirs.T, out=total)
                else:
                    torch.addmm(bias[right_of : right_of + COLUMNS].to(total.dtype), mine, theirs.T, out=total)
            product[below : below + ROWS, right_of : right_of + COLUMNS] = total
    return product


def widened(memory: Float[Tensor, " elements"], tile: Float[Tensor, "rows inner"]) -> Float[Tensor, "rows inner"]:
    """The tile in float32, in `memory` and in the order of its own memory: reading across rows would be slow."""
    if tile.stride(0) < tile.stride(1):
        return widened(memory, tile.T).T
    return memory[: tile.numel()].view(tile.shape).copy_(tile)


def shape_of_product(rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty(rows.shape[0], columns.shape[0])


def remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    rows, columns = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        wide_product(gradient, columns.T) if wanted[0] else None,
        wide_product(gradient.T, rows.T) if wanted[1] else None,
        gradient.sum(0) if wanted[2] else None,
    )


# not a custom_op, which costs as much time as a small product
torch.library.define("pairform::wide_product", "(Tensor rows, Tensor columns, Tensor? bias) -> Tensor")
torch.library.impl("pairform::wide_product", "CPU", multiply)
torch.library.register_fake("pairform::wide_product", shape_of_product)
torch.library.register_autograd("pairform::wide_product", differentiate, setup_context=remember)
register_flop_formula(torch.ops.pairform.wide_product)(lambda rows, columns, *_, **__: 2 * rows[0] * rows[1] * columns[0])


def wide_product(
    rows: Float[Tensor, "rows inner"], columns: Float[Tensor, "columns inner"], bias: Float[Tensor, " columns"] | None = None
) -> Float[Tensor, "rows columns"]:
    """`rows @ columns^T + bias` on a CPU in the dtype of `rows`, differentiable; a custom operator."""
    product: Tensor = torch.ops.pairform.wide_product(rows, columns, bias)
    return product
