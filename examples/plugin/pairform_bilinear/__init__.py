"""A feed-forward block that pairform finds through the entry point of this package."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

import pairform
from pairform.registry import PositiveInt


class Bilinear(nn.Module):
    """`down(gate(x) * up(x))`: a gate without an activation (Shazeer 2020, arXiv 2002.05202, section 2).

    hidden: the inner width.
    """

    class Spec(pairform.BlockSpec):
        name: Literal["bilinear"] = "bilinear"
        hidden: PositiveInt = Field(examples=[512])

    def __init__(self, spec: Spec, sizes: pairform.Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.width, spec.hidden, bias=False)
        self.up_proj = nn.Linear(sizes.width, spec.hidden, bias=False)
        self.down_proj = nn.Linear(spec.hidden, sizes.width, bias=False)

    def forward(self, hidden: Tensor, context: pairform.Context) -> Tensor:
        projected: Tensor = self.down_proj(self.gate_proj(hidden) * self.up_proj(hidden))
        return projected
