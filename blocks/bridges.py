"""Between the encoder's output and the decoder that reads it, for pairs of unequal width.

A bridge's `forward` takes `[batch, source_length, width]` and gives what the decoder reads. Its spec says how wide that is, and
whether merged attention has projections of its own for it.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.initializers import Constant, Initial, Normal
from pairform.registry import BlockSpec, PositiveFloat, Sizes


class BridgeSpec(BlockSpec):
    """What a decoder of `width` sees behind this bridge."""

    def source_width(self, encoder_width: int, width: int) -> int:
        """The width of what the decoder reads."""
        return encoder_width

    @property
    def source_keys(self) -> Literal["shared", "separate"]:
        """Whose weights merged attention projects it with."""
        return "shared"


class NoBridge(nn.Module):
    """The decoder reads the encoder's output as it is. Cross-attention can at any width; merged attention at its own only."""

    class Spec(BridgeSpec):
        name: Literal["none"] = "none"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return hidden


class SeparateKeysBridge(NoBridge):
    """The encoder's output as it is, and in each merged attention a key and a value projection for it alone.

    As in T5Gemma's cross-attention, these have the shape (kv heads x head_dim, encoder width).
    """

    class Spec(BridgeSpec):
        name: Literal["separate_keys"] = "separate_keys"

        @property
        def source_keys(self) -> Literal["shared", "separate"]:
            return "separate"


class LinearBridge(nn.Module):
    """One projection from the encoder's width to the decoder's, before all layers."""

    class Spec(BridgeSpec):
        name: Literal["linear"] = "linear"
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
        return Constant() if parameter == "bias" else Normal(std=self.spec.std or self.weight.shape[1] ** -0.5)

    def forward(self, hidden: Float[Tensor, "batch length source_width"]) -> Float[Tensor, "batch length width"]:
        return functional.linear(hidden, self.weight, self.bias)
