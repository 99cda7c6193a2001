"""What a head predicts from, with its logits where somebody asks for them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Prediction:
    """`head(hidden, valid, tied)`, computed when `logits` is first read: a loss may need only the hidden states.

    It lives within one forward pass, so that the logits are always of that pass's weights.
    """

    def __init__(
        self,
        head: nn.Module,
        hidden: Float[Tensor, "batch length width"],
        valid: Bool[Tensor, "batch length"] | None,
        tied: Float[Tensor, "vocabulary width"] | None,
    ) -> None:
        self.head, self.hidden, self.valid, self.tied = head, hidden, valid, tied
        self.computed: Tensor | None = None  # not a cached_property, whose lock in Python 3.11 breaks a compiled graph

    @property
    def logits(self) -> Tensor:
        if self.computed is None:
            self.computed = self.head(self.hidden, self.valid, self.tied)
        computed: torch.Tensor = self.computed
        return computed
