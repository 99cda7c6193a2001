"""The state of decoding between calls. It is passed in and out, and never stored in modules."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.blocks.key_values import KeyValueCache


@dataclass
class Cache(KeyValueCache):
    """The KV cache of a decoder, and the states of its recurrent mixers.

    beams:  the number of consecutive rows that share a source, whose keys and values are stored once for them.
    tokens: the token IDs of the cached prefix, recorded by `generate` to reject a prompt that begins differently.
    read:   a few channels of the source's hidden states, recorded to reject another source.
    owner:  the model that filled it, recorded to reject another one.
    """

    beams: int = 1
    tokens: Int[Tensor, "batch known"] | None = None
    read: Float[Tensor, "rows source_length channels"] | None = None
    owner: object = None

    @property
    def batch(self) -> int | None:
        """The batch size; None while the cache is empty."""
        some = self._some
        # a shared source has one row for all beams of a row
        return None if some is None else len(some) * (1 if self.own or self.states else self.beams)

    @property
    def device(self) -> torch.device | None:
        """The device of the keys and values; None while the cache is empty."""
        return None if self._some is None else self._some.device

    @property
    def _some(self) -> Tensor | None:
        """Any tensor of the cache: one with all rows if there is one, otherwise one that beams share."""
        held = [part.buffers.keys for part in self.own.values()] or [memory.state for memory in self.states.values()]
        return next(iter(held or [read.keys for read in self.source.values()]), None)

    @property
    def bytes(self) -> int:
        """Bytes of the present keys, values and states, without spare capacity."""
        return sum(part.bytes for held in (self.own, self.source, self.states) for part in held.values())

    def restart(self) -> None:
        """Forget the decoder's tokens, and keep what was computed of the source."""
        self.own.clear()
        self.states.clear()
        self.length = 0

    def crop(self, length: int) -> None:
        """Remove all tokens after the first `length`: see `OwnKeys.crop`. There must be no states, which cannot go back."""
        for part in self.own.values():
            part.crop(self.length - length)
        self.length = length

    def rows(self, index: Tensor) -> "Cache":
        """A cache of the batch rows in `index`, to reorder beams or drop finished sequences.

        Args:
            index: row numbers, `[rows]`.

        If `beams` share a source, its keys and values are not copied; then all beams of a row must stay together.
        """
        source = self.source if self.beams > 1 else {place: part.rows(index) for place, part in self.source.items()}
        own = {place: part.rows(index) for place, part in self.own.items()}
        states = {place: part.rows(index) for place, part in self.states.items()}
        tokens = None if self.tokens is None else self.tokens[index]
        read = self.read if self.read is None or self.beams > 1 else self.read[index]
        return replace(self, own=own, source=source, states=states, tokens=tokens, read=read)

    def spread(self, beams: int, *, share: bool = True) -> "Cache":
        """A cache that repeats each row `beams` times, consecutively. With `share`, keys and values of the source are not
        copied."""
        some = self._some
        if some is None:  # a decoder whose blocks keep nothing
            return replace(self, beams=beams)
        index = torch.arange(len(some), device=some.device).repeat_interleave(beams)
        return replace(self, beams=beams if share else self.beams).rows(index)
