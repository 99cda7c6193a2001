"""Memory that is used again."""

from math import prod

import torch
from torch import Tensor


class Buffers:
    """Tensors by name, each allocated once and again only where more is needed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.memory: dict[str, Tensor] = {}
        self.views: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The memory called `name`, in a shape; what it held is in it still."""
        found = self.views.get((name, shape))
        if found is None:
            count, held = prod(shape), self.memory.get(name)
            if held is None or held.numel() < count:
                held = self.memory[name] = torch.empty(count, dtype=dtype, device=self.device)
                self.views = {key: view for key, view in self.views.items() if key[0] != name}
            found = self.views[name, shape] = held[:count].view(shape)
        return found
