"""Masked tokens, for encoders."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from pairform.registry import PositiveInt, Probability, Problem
from pairform.training.data.objectives.base import IGNORED, Marks, Piece, Text, WindowObjective


class Masked(WindowObjective):
    """Masked language modelling (BERT; Devlin et al. 2019, arXiv 1810.04805, section 3.1), and with `shift` masked next token
    prediction (LLM2Vec; BehnamGhader et al. 2024, arXiv 2404.05961, section 2), which suits encoders made of decoders.
    """

    assemblies: ClassVar[tuple[str, ...]] = ("encoder_only",)
    heads: ClassVar[tuple[str, ...]] = ("lm", "masked_lm")
    generates: ClassVar[bool] = False

    name: Literal["masked"]
    window: PositiveInt = Field(default=128, description="Tokens per window.")
    rate: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.15, description="Fraction of the tokens that are predicted.")
    random: Probability = Field(default=0.0, description="Fraction of the predicted tokens that a random one stands for.")
    keep: Probability = Field(default=0.0, description="Fraction of the predicted tokens that are left as they are.")
    shift: bool = Field(default=False, description="Predict a token at the place before it.")
    mask: Annotated[int, Field(ge=0)] | str | None = Field(
        default=None,
        description="Token that stands for the others, as an id or as a token of the tokenizer, such as `<mask>`. Default: the "
        "first id that no text has.",
    )

    def check(self) -> Iterator[Problem]:
        if self.window < 2:
            yield Problem("window", str(self.window), "at least 2")
        if self.random + self.keep > 1:
            yield Problem("random", f"{self.random:g} + {self.keep:g} to keep", "at most 1 together")

    def examples(self, texts: Sequence[Text], numbers: np.random.Generator, marks: Marks) -> list[Piece | None]:
        """The masked places are drawn from all documents of the window together, so that short ones do not distort the rate."""
        assert marks.mask is not None, "checked with the tokenizer"
        first = int(self.shift)  # no place stands before a document's first token
        tokens = np.concatenate([text.tokens[first:] for text in texts]) if texts else np.zeros(0, np.int32)
        count = max(1, int(len(tokens) * self.rate + numbers.random()))  # on average the rate exactly
        chosen = numbers.permutation(len(tokens))[:count]
        drawn = numbers.random(len(chosen))
        masked, labels = tokens.copy(), np.full(len(tokens), IGNORED, np.int32)
        labels[chosen] = tokens[chosen]
        masked[chosen[drawn >= self.keep]] = marks.mask
        replaced = chosen[drawn >= 1 - self.random]
        if len(replaced):
            masked[replaced] = numbers.choice(marks.words, len(replaced))
        made: list[Piece | None] = []
        begin = 0
        for text, _ in texts:
            length = len(text) - first
            if length < 1:
                made.append(None)
                continue
            some = slice(begin, begin + length)
            begin += length
            if not self.shift:
                made.append(Piece(masked[some], labels[some]))
            else:
                ignored = np.full(1, IGNORED, np.int32)
                made.append(Piece(np.concatenate((text[:1], masked[some])), np.concatenate((labels[some], ignored))))
        return made
