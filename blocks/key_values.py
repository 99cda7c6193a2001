"""Keys, values and recurrent states of earlier tokens, as attention writes and reads them."""

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Place: TypeAlias = tuple[int, str]
"""Layer number and branch name: `(3, "self_attention")`."""
BUCKET = 64
"""The capacity of buffers is a multiple of this many tokens."""


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of consecutive tokens; `start` is the position of the first one in the sequence."""

    keys: Float[Tensor, "batch kv_heads length head_dim"]
    values: Float[Tensor, "batch kv_heads length head_dim"]
    start: int = 0

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.keys, self.values))

    def then(self, keys: Tensor, values: Tensor) -> "KeyValues":
        """A copy of these with newer ones appended."""
        return KeyValues(torch.cat((self.keys, keys), 2), torch.cat((self.values, values), 2), self.start)

    def last(self, count: int) -> "KeyValues":
        """A view of the newest `count` tokens."""
        excess = max(self.keys.shape[2] - count, 0)
        return KeyValues(self.keys[:, :, excess:], self.values[:, :, excess:], self.start + excess)

    def rows(self, index: Tensor) -> "KeyValues":
        """The batch rows that `index` names, in its order."""
        return KeyValues(self.keys[index], self.values[index], self.start)


@dataclass
class OwnKeys:
    """Keys and values of a decoder's own tokens, written in place into buffers with spare capacity.

    With a `window`, only that many of the newest tokens are kept between calls: when the buffers are full, these move to the
    front, and the buffers stay small. Without a window all tokens are kept, and the capacity doubles when the buffers are full.
    The tokens kept are those from `begin` to `end` in the buffers; `start` is the position of the first in the sequence.
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
    def whole(self) -> KeyValues:
        """The buffers, with unused slots after the tokens kept, and with a window slots of earlier tokens before them.

        A product in half precision copies keys that are a part of a buffer first, which takes longer than the product itself.
        """
        return KeyValues(self.buffers.keys, self.buffers.values, self.start - self.begin)

    @property
    def is_half_full(self) -> bool:
        """Whether the tokens kept fill half of the buffers or more, so that reading the rest, too, costs little."""
        return 2 * (self.end - self.begin) >= self.capacity

    @property
    def bytes(self) -> int:
        """Bytes of the tokens kept, without spare capacity."""
        return self.held.bytes

    @property
    def capacity(self) -> int:
        """The number of tokens that fit into the buffers."""
        return self.buffers.keys.shape[2]

    def write(self, keys: Tensor, values: Tensor, room: int = 0) -> KeyValues:
        """Append new tokens. Returns the keys and values that they may attend to: all that were kept, and their own.

        room: the expected length of the sequence, to allocate buffers once. With gradients enabled nothing is written in place,
        since autograd may have saved the tensors for the gradient of queries, of a bias or of a source.
        """
        count, trained = keys.shape[2], torch.is_grad_enabled()
        total = self.end - self.begin + count
        # not in place: gradients, or more tokens than the buffers of a window hold, as in a long prompt
        if trained or (self.limit is not None and total > self.limit):
            attended = self.held.then(keys, values) if total > count else KeyValues(keys, values, self.start)
            self.hold(attended if self.window is None else attended.last(self.window), 0 if trained else max(room, total))
            return attended
        if self.end + count > self.capacity:  # reallocate, or with a window move to the front
            # the first allocation is for these tokens only; later ones double, so that copies stay a constant share
            self.hold(self.held, max(room, total, min(2 * total, 2 * self.capacity)))
        new = slice(self.end, self.end + count)
        self.buffers.keys[:, :, new], self.buffers.values[:, :, new] = keys, values
        self.end += count
        # before `forget`: the oldest new query attends to tokens outside the window of the last one
        attended = self.held
        self.forget()
        return attended

    @property
    def limit(self) -> int | None:
        """The largest capacity of buffers with a window; None without one."""
        return None if self.window is None else rounded(self.window + BUCKET)

    def hold(self, newest: KeyValues, room: int) -> None:
        """Keep exactly these tokens: copied to the front of buffers for `room` tokens, or with `room` 0 as they are."""
        length = newest.keys.shape[2]
        self.start, self.begin, self.end = newest.start, 0, length
        if room == 0:
            self.buffers = newest
            return
        capacity = rounded(max(room, length))
        capacity = capacity if self.limit is None else min(capacity, self.limit)
        if capacity <= self.capacity:
            newest = KeyValues(newest.keys.clone(), newest.values.clone())  # they are views of the buffers that are overwritten
        else:
            shape = (*newest.keys.shape[:2], capacity)
            # zeros: a compiled step reads unused slots with a weight of 0, and 0 times NaN is NaN
            keys = newest.keys.new_zeros((*shape, newest.keys.shape[3]))
            self.buffers = KeyValues(keys, newest.values.new_zeros((*shape, newest.values.shape[3])))
        self.buffers.keys[:, :, :length], self.buffers.values[:, :, :length] = newest.keys, newest.values

    def forget(self) -> None:
        """Drop tokens outside the window."""
        if self.window is not None and (excess := self.end - self.begin - self.window) > 0:
            self.begin, self.start = self.begin + excess, self.start + excess

    def crop(self, count: int) -> None:
        """Remove the newest `count` tokens. With a window, all of them must be of the last `write`, and at most `BUCKET`: then
        the tokens before the window are still in the buffers."""
        self.end -= count
        if self.window is not None:
            begin = min(self.begin, max(self.end - self.window, 0))
            self.begin, self.start = begin, self.start - (self.begin - begin)

    def advance(self) -> int:
        """Reserve a slot for one token, and return its index in the buffers, for `put`."""
        if self.end == self.capacity:
            # doubles, or with a window, where the capacity is limited, moves the kept tokens to the front
            self.hold(self.held, 2 * self.capacity)
        self.end += 1
        self.forget()
        return self.end - 1

    def put(self, keys: Tensor, values: Tensor, slot: Int[Tensor, "1"]) -> KeyValues:
        """Write one token at the index in `slot`, a tensor so that one compiled step serves all slots. Returns the buffers."""
        self.buffers.keys.index_copy_(2, slot, keys)
        self.buffers.values.index_copy_(2, slot, values)
        return self.buffers

    def rows(self, index: Tensor) -> "OwnKeys":
        """The batch rows that `index` names, in its order."""
        return OwnKeys(self.buffers.rows(index), self.window, self.begin, self.end, self.start)


@dataclass(frozen=True)
class Memory:
    """The state of a recurrent mixer, which takes the place of keys. Its size does not depend on the number of tokens."""

    state: Float[Tensor, "batch heads head_dim value_dim"]

    @property
    def bytes(self) -> int:
        return self.state.numel() * self.state.element_size()

    def rows(self, index: Tensor) -> "Memory":
        """The batch rows that `index` names, in its order."""
        return Memory(self.state[index])


@dataclass
class KeyValueCache:
    """What layers keep from call to call; `Cache` adds what generation needs.

    own:    keys and values of the decoder's tokens by layer and branch. They grow with each call; a local layer keeps only its
            window.
    source: keys and values of the source by layer and branch, computed once.
    states: states of recurrent mixers by layer and branch.
    length: the number of the decoder's tokens so far.
    room:   the number of tokens to allocate buffers for. A longer sequence is possible, and reallocates them.
    """

    own: dict[Place, OwnKeys] = field(default_factory=dict)
    source: dict[Place, KeyValues] = field(default_factory=dict)
    states: dict[Place, Memory] = field(default_factory=dict)
    length: int = 0
    room: int = 0


def rounded(count: int) -> int:
    """The next multiple of `BUCKET`."""
    return -(-count // BUCKET) * BUCKET
