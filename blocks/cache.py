"""What decoding remembers between calls. State lives here, outside the modules, and is passed in and out."""

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Place: TypeAlias = tuple[int, str]
"""Which branch of which layer: `(3, "self_attention")`."""
BUCKET = 64
"""Buffers have room for a multiple of so many tokens."""


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
        """These followed by newer ones, as a copy."""
        return KeyValues(torch.cat((self.keys, keys), 2), torch.cat((self.values, values), 2), self.start)

    def last(self, count: int) -> "KeyValues":
        """Only the newest `count`, as a view."""
        excess = max(self.keys.shape[2] - count, 0)
        return KeyValues(self.keys[:, :, excess:], self.values[:, :, excess:], self.start + excess)

    def rows(self, index: Tensor) -> "KeyValues":
        """The batch rows that `index` names, in its order."""
        return KeyValues(self.keys[index], self.values[index], self.start)


@dataclass
class OwnKeys:
    """Keys and values of a decoder's own tokens, written in place into buffers with room for more.

    With a `window`, only so many of the newest are held between calls: when the room behind them ends, they move back to the
    front of buffers that stay small. Without, all are held, and the room doubles. The tokens `begin` to `end` of the buffers
    are held; `start` is the place of the first of them in the sequence.
    """

    buffers: KeyValues
    window: int | None = None
    begin: int = 0
    end: int = 0
    start: int = 0

    @property
    def held(self) -> KeyValues:
        part = slice(self.begin, self.end)
        return KeyValues(self.buffers.keys[:, :, part], self.buffers.values[:, :, part], self.start)

    @property
    def keys(self) -> Float[Tensor, "batch kv_heads held head_dim"]:
        return self.held.keys

    @property
    def values(self) -> Float[Tensor, "batch kv_heads held head_dim"]:
        return self.held.values

    @property
    def bytes(self) -> int:
        """Bytes of what is held. The buffers have room for more."""
        return self.held.bytes

    @property
    def capacity(self) -> int:
        """How many tokens the buffers have room for."""
        return self.buffers.keys.shape[2]

    def write(self, keys: Tensor, values: Tensor, room: int = 0) -> KeyValues:
        """Add newer tokens. Gives what they may see: all that was held, and they themselves.

        room: how many tokens the sequence is expected to have. Where gradients are enabled nothing is written in place, since
        autograd may keep what is held for a gradient of queries, of a bias or of a source.
        """
        count, trained = keys.shape[2], torch.is_grad_enabled()
        total = self.end - self.begin + count
        if trained or (self.limit is not None and total > self.limit):
            seen = self.held.then(keys, values) if total > count else KeyValues(keys, values, self.start)
            self.hold(seen if self.window is None else seen.last(self.window), 0 if trained else max(room, total))
            return seen
        if self.end + count > self.capacity:
            self.hold(self.held, max(room, total, min(2 * total, 2 * self.capacity)))
        new = slice(self.end, self.end + count)
        self.buffers.keys[:, :, new], self.buffers.values[:, :, new] = keys, values
        self.end += count
        seen = self.held
        self.forget()
        return seen

    @property
    def limit(self) -> int | None:
        """The most tokens that buffers with a window ever have room for."""
        return None if self.window is None else rounded(self.window + BUCKET)

    def hold(self, newest: KeyValues, room: int) -> None:
        """Hold exactly these: at the front of buffers with this much room, or, without room, where they lie."""
        length = newest.keys.shape[2]
        self.start, self.begin, self.end = newest.start, 0, length
        if room == 0:
            self.buffers = newest
            return
        capacity = rounded(max(room, length))
        capacity = capacity if self.limit is None else min(capacity, self.limit)
        if capacity <= self.capacity:
            newest = KeyValues(newest.keys.clone(), newest.values.clone())  # they lie in the buffers that are written
        else:
            shape = (*newest.keys.shape[:2], capacity)
            keys = newest.keys.new_zeros((*shape, newest.keys.shape[3]))
            self.buffers = KeyValues(keys, newest.values.new_zeros((*shape, newest.values.shape[3])))
        self.buffers.keys[:, :, :length], self.buffers.values[:, :, :length] = newest.keys, newest.values

    def forget(self) -> None:
        """Hold no more than the window."""
        if self.window is not None and (excess := self.end - self.begin - self.window) > 0:
            self.begin, self.start = self.begin + excess, self.start + excess

    def advance(self) -> int:
        """Make room for one token and count it as held. Gives its place in the buffers, for `put`."""
        if self.end == self.capacity:
            self.hold(self.held, 2 * self.capacity)
        self.end += 1
        self.forget()
        return self.end - 1

    def put(self, keys: Tensor, values: Tensor, slot: Int[Tensor, "1"]) -> KeyValues:
        """Write one token at a place that a tensor names, so that a compiled step serves every place. Gives whole buffers."""
        self.buffers.keys.index_copy_(2, slot, keys)
        self.buffers.values.index_copy_(2, slot, values)
        return self.buffers

    def rows(self, index: Tensor) -> "OwnKeys":
        """The batch rows that `index` names, in its order."""
        return OwnKeys(self.buffers.rows(index), self.window, self.begin, self.end, self.start)


@dataclass(frozen=True)
class Memory:
    """What a recurrent mixer keeps in the place of keys: as large after any number of tokens."""

    state: Float[Tensor, "batch heads head_dim value_dim"]

    @property
    def bytes(self) -> int:
        return self.state.numel() * self.state.element_size()

    def rows(self, index: Tensor) -> "Memory":
        """The batch rows that `index` names, in its order."""
        return Memory(self.state[index])


@dataclass
class Cache:
    """A decoder's memory. `own` keys grow by each call (a local layer keeps only its window); `source` keys and the `states` of
    recurrent mixers do not.

    length: the decoder's tokens so far.
    room:   how many tokens buffers are made for; more than that is possible, and moves them.
    beams:  how many neighbouring rows read the same source, whose keys and values are held once for them.
    tokens: the first ids that it holds, recorded by `generate` to refuse a prompt that begins differently.
    read:   a few channels of the source's hidden states, recorded to refuse another source.
    owner:  the model that filled it, recorded to refuse another one.
    """

    own: dict[Place, OwnKeys] = field(default_factory=dict)
    source: dict[Place, KeyValues] = field(default_factory=dict)
    states: dict[Place, Memory] = field(default_factory=dict)
    length: int = 0
    room: int = 0
    beams: int = 1
    tokens: Int[Tensor, "batch known"] | None = None
    read: Float[Tensor, "rows source_length channels"] | None = None
    owner: object = None

    @property
    def batch(self) -> int | None:
        """The number of rows it holds; None while it is empty."""
        some = self._some
        return None if some is None else len(some) * (1 if self.own or self.states else self.beams)

    @property
    def device(self) -> torch.device | None:
        """Where it is; None while it is empty."""
        return None if self._some is None else self._some.device

    @property
    def _some(self) -> Tensor | None:
        """Any of the tensors that it holds, one of each row's own before one that beams share."""
        held = [part.buffers.keys for part in self.own.values()] or [memory.state for memory in self.states.values()]
        return next(iter(held or [read.keys for read in self.source.values()]), None)

    @property
    def bytes(self) -> int:
        """Bytes of keys, values and states held now; own buffers have room for more."""
        return sum(part.bytes for held in (self.own, self.source, self.states) for part in held.values())

    def rows(self, index: Tensor) -> "Cache":
        """A cache of the batch rows that `index` names: to reorder beams or drop finished sequences.

        Where `beams` share a source, its keys and values are not copied: all beams of a row stay together.
        """
        source = self.source if self.beams > 1 else {place: part.rows(index) for place, part in self.source.items()}
        own = {place: part.rows(index) for place, part in self.own.items()}
        states = {place: part.rows(index) for place, part in self.states.items()}
        tokens = None if self.tokens is None else self.tokens[index]
        read = self.read if self.read is None or self.beams > 1 else self.read[index]
        return replace(self, own=own, source=source, states=states, tokens=tokens, read=read)

    def spread(self, beams: int, *, share: bool = True) -> "Cache":
        """A cache of each row as often as it has beams, one after the other. With `share`, the source's keys are not copied."""
        held = [part.buffers.keys for part in self.own.values()] + [part.keys for part in self.source.values()]
        held += [part.state for part in self.states.values()]
        if not held:  # of a decoder whose tokens read no other
            return replace(self, beams=beams)
        index = torch.arange(len(held[0]), device=held[0].device).repeat_interleave(beams)
        return replace(self, beams=beams if share else self.beams).rows(index)


def rounded(count: int) -> int:
    """The next multiple of `BUCKET`."""
    return -(-count // BUCKET) * BUCKET
