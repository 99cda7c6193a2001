"""Copies of weights in oneDNN's blocked layout, held while `generate` runs.

For a product with few rows, oneDNN spends most of its time on reordering the weight into blocks, again for each product. A
decoding step is such products only, so its weights are copied into blocks once for all steps of a call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pairform.blocks.functional.processor import onednn_multiplies

ROWS = 8
"""Rows of input that the layout is chosen for. The layouts for 1 and for 1000 rows are the same or equally fast."""
FEW = 32
"""The largest number of rows of a product whose weight is copied."""
LEAST = 1 << 19
"""The size of the smallest weight that is copied, in bytes: smaller ones stay in the processor's caches."""
LIMIT = 1 << 30
"""The largest size of all copies together, in bytes. Further weights are used as they are."""


@dataclass
class Packed:
    """Copies by the identity of their weights, which are held too, so that no other object gets the same identity."""

    bytes: int = 0
    copies: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of(self, hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"]) -> Tensor | None:
        """The copy of a weight, made at its first product with few rows; None if the product is to use the weight."""
        held = self.copies.get(id(weight))
        if held is None:
            if not self.pays(hidden, weight):
                return None
            self.bytes += weight.nbytes
            held = self.copies[id(weight)] = weight, packed(weight)
        return held[1] if hidden.dtype == weight.dtype else None

    def pays(self, hidden: Float[Tensor, "... in"], weight: Float[Tensor, "out in"]) -> bool:
        """Whether to copy a weight."""
        if weight.nbytes < LEAST:
            return False
        # a shard or a view may be another object in the next step
        whole = type(weight) is nn.Parameter and weight.layout == torch.strided and weight.device.type == "cpu"
        rows = hidden.numel() // weight.shape[1]
        # in float32 the plain layout is as fast for one row
        few = (1 if weight.dtype != torch.float32 else 2) <= rows <= FEW
        return whole and few and self.bytes + weight.nbytes <= LIMIT and onednn_multiplies(weight.dtype)


COPIES: ContextVar[Packed | None] = ContextVar("COPIES", default=None)
"""The copies of this thread's call."""


@contextmanager
def packing(enabled: bool) -> Iterator[None]:
    """Copy weights within this context, and forget the copies after it. No weight may change meanwhile."""
    token = COPIES.set(Packed() if enabled and not torch.is_autocast_enabled("cpu") else None)
    try:
        yield
    finally:
        COPIES.reset(token)


def packed(weight: Float[Tensor, "out in"]) -> Tensor:
    """The weight in oneDNN's blocks."""
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return blocks


def packed_linear(
    input: Float[Tensor, "... in"], weight: Tensor, bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "... out"]:
    """`functional.linear` with a weight that `packed` returned."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product
