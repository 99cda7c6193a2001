"""Reuse of memory between tiles."""

from math import prod

import torch
from torch import Tensor


class Buffers:
    """Scratch tensors by name. Each is allocated once, and again only when a larger one is requested."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.memory: dict[str, Tensor] = {}
        self.views: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The memory called `name` as a tensor of this shape, with its previous contents. A name always has the same dtype."""
        view = self.views.get((name, shape))
        if view is None:
            count, memory = prod(shape), self.memory.get(name)
            if memory is None or memory.numel() < count:
                memory = self.memory[name] = torch.empty(count, dtype=dtype, device=self.device)
                # views of the memory that was replaced
                self.views = {key: view for key, view in self.views.items() if key[0] != name}
            view = self.views[name, shape] = memory[:count].view(shape)
        return view
