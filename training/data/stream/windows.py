"""Windows of a stream: the documents of a source, one after the other, each with an end token."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from pairform.training.data.stream.order import Epochs


class Fragment(Protocol):
    """A document, or the part of it that lies in a window.

    tokens:       int32, without the end token; empty if only that lies in the window.
    starts, ends: whether the document begins and ends in the window.
    """

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def starts(self) -> bool: ...
    @property
    def ends(self) -> bool: ...


@runtime_checkable
class TextStream(Protocol):
    """Running text of one source."""

    @property
    def name(self) -> str:
        """The source's name in reports."""
        ...

    @property
    def weight(self) -> float:
        """The share of the training examples, relative to the other sources'."""
        ...

    @property
    def length(self) -> int:
        """Tokens of all documents, with an end token each."""
        ...

    def fragments(self, begin: int, end: int) -> Sequence[Fragment]:
        """The documents in tokens `begin` to `end`, in order."""
        ...


@runtime_checkable
class PairStream(Protocol):
    """Pairs of a source and a target from one source of data."""

    @property
    def name(self) -> str:
        """As of a `TextStream`."""
        ...

    @property
    def weight(self) -> float:
        """As of a `TextStream`."""
        ...

    @property
    def documents(self) -> int:
        """The number of pairs."""
        ...

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a source and of a target, int32, without end tokens."""
        ...


class Windows:
    """The windows of a stream in the order in which they are read. Each epoch visits every window once.

    The stream is read as a ring that is cut at a random token in each epoch, so that all windows are equally long. The tokens
    that are left over, fewer than a window, are skipped in that epoch. A shorter stream is one window.
    """

    def __init__(self, stream: TextStream, window: int, seed: int, source: int) -> None:
        self.stream = stream
        self.window = min(window, stream.length)
        self.epochs = Epochs(stream.length // self.window, seed, source)

    def bounds(self, draw: int) -> tuple[int, int]:
        """Where window number `draw` begins and ends. After the stream's end it goes on at its beginning."""
        epoch, item = self.epochs.item(draw)
        begin = (self.epochs.offset(epoch, self.stream.length) + item * self.window) % self.stream.length
        return begin, begin + self.window

    def fragments(self, draw: int) -> list[Fragment]:
        begin, end = self.bounds(draw)
        length = self.stream.length
        if end <= length:
            return [*self.stream.fragments(begin, end)]
        return [*self.stream.fragments(begin, length), *self.stream.fragments(0, end - length)]
