"""What a head says, worked out only if somebody reads it."""

from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pairform.blocks.precision import cast_to


class Prediction:
    """`head(hidden, valid, tied)`, computed once, when `logits` is first read, under the modes (gradients, autocast) that were
    on when this was made."""

    def __init__(
        self,
        head: nn.Module,
        hidden: Float[Tensor, "batch length width"],
        valid: Bool[Tensor, "batch length"] | None,
        tied: Float[Tensor, "vocabulary width"] | None,
    ) -> None:
        self.head, self.hidden, self.valid, self.tied = head, hidden, valid, tied
        self.made: Tensor | None = None  # not a cached_property, whose lock in Python 3.11 breaks a compiled graph
        self.gradients = torch.is_grad_enabled()
        self.dtype = cast_to(hidden.device.type)

    @property
    def logits(self) -> Tensor:
        if self.made is None:
            cast = nullcontext() if self.dtype is None else torch.autocast(self.hidden.device.type, self.dtype)
            with torch.set_grad_enabled(self.gradients), cast:
                self.made = self.head(self.hidden, self.valid, self.tied)
        made: Tensor = self.made
        return made
