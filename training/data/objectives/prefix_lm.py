"""The objectives that continue a text: PrefixLM, and the causal language model of decoders."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pairform.registry import PositiveInt
from pairform.training.data.objectives.base import Lengths, Marks, Piece, Text, WindowObjective


class PrefixLM(WindowObjective):
    """The target is what follows the source in the text (T5Gemma, arXiv 2504.06225, section 3: both halves as long).

    The target has an end token only where the text ends.
    """

    name: Literal["prefix_lm"]
    source: PositiveInt = Field(default=64, description="Tokens of the source.")
    target: PositiveInt = Field(default=64, description="Tokens of the target, which follows the source in the text.")
    split: Literal["fixed", "uniform"] = Field(
        default="fixed",
        description="Where the target begins. `fixed`: after `source` of the window's tokens, and in a window of several "
        "documents in each one, in the same proportion. `uniform`: at a random token after the first, each as likely.",
    )

    @property
    def window(self) -> int:
        """Tokens of text in a window."""
        return self.source + self.target

    @property
    def lengths(self) -> list[Lengths]:
        """Lengths of its longest examples."""
        if self.split == "fixed":
            return [(self.source, self.target)]
        return [(1, self.window - 1), (self.window - 1, 1)]

    def examples(self, texts: Sequence[Text], numbers: np.random.Generator, marks: Marks) -> list[Piece | None]:
        """Of several documents with a fixed split, the sources together have the share `source / window` to the nearest token,
        so that rows of whole windows are equally long.
        """
        made: list[Piece | None] = []
        before = taken = 0
        for text in texts:
            tokens = text.with_end(marks.end)
            length = len(tokens)
            if length < 2:
                made.append(None)
                continue
            if self.split == "uniform":
                place = int(numbers.integers(1, length))
            else:
                before += length
                wanted = (2 * before * self.source + self.window) // (2 * self.window)
                place = min(max(wanted - taken, 1), length - 1)
                taken += place
            made.append(Piece(tokens[:place], tokens[place:]))
        return made


class CausalLM(WindowObjective):
    """Each token of the text is predicted from those before it, for decoder-only models."""

    assemblies: ClassVar[tuple[str, ...]] = ("decoder_only",)
    generates: ClassVar[bool] = False

    name: Literal["causal_lm"]
    window: PositiveInt = Field(default=128, description="Tokens per window.")

    def examples(self, texts: Sequence[Text], numbers: np.random.Generator, marks: Marks) -> list[Piece | None]:
        all_tokens = (text.with_end(marks.end) for text in texts)
        return [Piece(tokens, tokens) if len(tokens) > 1 else None for tokens in all_tokens]
