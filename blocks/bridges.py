"""Bridges adapt the encoder's output to the decoder, for stacks of different widths.

The `forward` of a bridge maps `[batch, source_length, encoder_width]` to the source of the decoder. Its spec says how wide the
source is, and whether merged attention has separate projections for it.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.functional.initializers import Constant, Initial, Normal
from pairform.blocks.functional.linear import linear
from pairform.blocks.spec_fields import BridgeSpec
from pairform.registry import PositiveFloat, Sizes


class NoBridge(nn.Module):
    """The identity. Cross-attention reads a source of any width, merged attention only one of the decoder's width."""

    class Spec(BridgeSpec):
        name: Literal["none"] = "none"
        formula: ClassVar[str] = r"$$y = x$$"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return hidden


class SeparateKeysBridge(NoBridge):
    """The identity, with a separate key and value projection for the source in each merged attention block.

    As in T5Gemma's cross-attention, these have the shape `[kv_heads * head_dim, encoder_width]`.
    """

    class Spec(BridgeSpec):
        name: Literal["separate_keys"] = "separate_keys"
        formula: ClassVar[str] = r"""
        $$y = x$$

        In merged attention, $k'_l = W'_K z_l$ and $v'_l = W'_V z_l$ are the keys and values of the source.
        """

        @property
        def source_keys(self) -> Literal["shared", "separate"]:
            return "separate"


class LinearBridge(nn.Module):
    """One linear projection from the encoder's width to the decoder's, shared by all layers."""

    class Spec(BridgeSpec):
        name: Literal["linear"] = "linear"
        formula: ClassVar[str] = r"$$y = W x + b$$"
        std: PositiveFloat | None = Field(
            default=None,
            description="Standard deviation of the initial weights. Default: `encoder_width ** -0.5`, which preserves the mean "
            "square of the encoder's normalised output.",
        )
        bias: bool = Field(default=False, description="Add a learned bias.")

        def source_width(self, encoder_width: int, width: int) -> int:
            return width

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.source_width is not None, "given by every model with an encoder"
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(sizes.width, sizes.source_width))
        self.bias = nn.Parameter(torch.empty(sizes.width)) if spec.bias else None

    def initial(self, parameter: str, spread: float) -> Initial:
        """The distribution of a new weight."""
        return Constant() if parameter == "bias" else Normal(std=self.spec.std or self.weight.shape[1] ** -0.5)

    def forward(self, hidden: Float[Tensor, "batch length source_width"]) -> Float[Tensor, "batch length width"]:
        """The projected hidden states."""
        return linear(hidden, self.weight, self.bias)
