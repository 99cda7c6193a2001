"""What objectives read and make: texts of a window, and examples of token ids. Nothing here needs torch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from pairform.registry import Problem, Spec

Example = tuple[list[int], list[int]]
"""Token ids of the source, and of the target including its end token."""
Lengths = tuple[int, int]
"""Tokens of a source and of a target."""
IGNORED = -100
"""The label of tokens that the loss ignores, as in torch."""


class Text(NamedTuple):
    """A document, or the part of it that lies in a window. ends: whether the document ends there. tokens: `[length]`, int32."""

    tokens: np.ndarray
    ends: bool

    def with_end(self, end: int) -> np.ndarray:
        """The tokens, followed by the end token if the document ends."""
        return np.append(self.tokens, np.int32(end)) if self.ends else self.tokens


class Marks(NamedTuple):
    """Token ids that objectives add to the text.

    end:       ends a target.
    sentinels: in order of their use.
    mask:      stands for a masked token.
    words:     the ids that occur in text, `[number]`.
    """

    end: int
    sentinels: np.ndarray = np.zeros(0, np.int32)
    mask: int | None = None
    words: np.ndarray = np.zeros(0, np.int32)


class Piece(NamedTuple):
    """One training example, int32.

    source: what the encoder reads; `[length]`.
    target: what the decoder generates, `[target_length]`. For models with one stack the labels of the source's tokens, as the
            model takes them, `[length]`; `IGNORED` where the loss ignores one.
    """

    source: np.ndarray
    target: np.ndarray


class Objective(Spec):
    """Base of the objectives.

    Attributes:
        assemblies: the assemblies of models that it trains.
        heads: the heads of models that it trains.
        generates: whether it makes pairs of a source and a target, which a model with one stack reads as one text. Otherwise
            targets are labels of the source's tokens.
    """

    assemblies: ClassVar[tuple[str, ...]] = ("encoder_decoder", "decoder_only")
    heads: ClassVar[tuple[str, ...]] = ("lm",)
    generates: ClassVar[bool] = True

    @property
    def needed(self) -> int:
        """Number of sentinels."""
        return 0

    def check(self) -> Iterator[Problem]:
        """What is wrong with the settings."""
        yield from ()


class WindowObjective(Objective):
    """Base of the objectives on running text. Each has a `window`, a number of tokens, as a field or a property."""

    @abstractmethod
    def examples(self, texts: Sequence[Text], numbers: np.random.Generator, marks: Marks) -> list[Piece | None]:
        """An example of each text of a window; None for a text that is too short."""

    def example(self, window: np.ndarray, numbers: np.random.Generator, marks: Marks) -> Example:
        """The example of a whole window in which nothing ends, as lists."""
        (made,) = self.examples([Text(window, ends=False)], numbers, marks)
        assert made is not None, "a window is long enough"
        return made.source.tolist(), made.target.tolist()
