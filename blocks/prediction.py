"""What a head says, worked out only if somebody reads it."""

from contextlib import nullcontext
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


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
        device = hidden.device.type
        self.gradients = torch.is_grad_enabled()
        casts = torch.amp.is_autocast_available(device)  # not on the meta device
        self.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)) if casts else None

    @cached_property
    def logits(self) -> Tensor:
        autocast = nullcontext() if self.autocast is None else torch.autocast(*self.autocast)
        with torch.set_grad_enabled(self.gradients), autocast:
            made: Tensor = self.head(self.hidden, self.valid, self.tied)
        return made
