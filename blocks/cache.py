"""What decoding remembers between calls. State lives here, outside the modules, and is passed in and out."""

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Place: TypeAlias = tuple[int, str]
"""Which branch of which layer: `(3, "self_attention")`."""


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of consecutive tokens; `start` is the place of the first one in the sequence."""

    keys: Float[Tensor, "batch kv_heads length head_dim"]
    values: Float[Tensor, "batch kv_heads length head_dim"]
    start: int = 0

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.keys, self.values))

    def then(self, keys: Tensor, values: Tensor) -> "KeyValues":
        """These followed by newer ones."""
        return KeyValues(torch.cat((self.keys, keys), 2), torch.cat((self.values, values), 2), self.start)

    def last(self, count: int) -> "KeyValues":
        """Only the newest `count`."""
        excess = self.keys.shape[2] - count
        if excess <= 0:
            return self
        return KeyValues(self.keys[:, :, excess:].clone(), self.values[:, :, excess:].clone(), self.start + excess)

    def rows(self, index: Tensor) -> "KeyValues":
        """The batch rows that `index` names, in its order."""
        return KeyValues(self.keys[index], self.values[index], self.start)


@dataclass
class Cache:
    """A decoder's memory. `own` keys grow by each call (a local layer keeps only its window); `source` keys do not.

    `length` counts the decoder's tokens so far.
    """

    own: dict[Place, KeyValues] = field(default_factory=dict)
    source: dict[Place, KeyValues] = field(default_factory=dict)
    length: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of keys and values held now."""
        return sum(part.bytes for parts in (self.own, self.source) for part in parts.values())

    def rows(self, index: Tensor) -> "Cache":
        """A cache of the batch rows that `index` names: to reorder beams or drop finished sequences."""
        return Cache(
            {place: part.rows(index) for place, part in self.own.items()},
            {place: part.rows(index) for place, part in self.source.items()},
            self.length,
        )
