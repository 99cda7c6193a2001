"""Sequence pairs, for fine-tuning."""

from typing import Literal

import numpy as np
from pydantic import Field

from pairform.registry import PositiveInt
from pairform.training.data.objectives.base import Marks, Objective, Piece


class SequencePairs(Objective):
    """A source and its target, such as a question and its answer. Only the target has a loss."""

    name: Literal["pairs"]
    source: PositiveInt = Field(default=512, description="Most tokens of a source; longer ones are truncated.")
    target: PositiveInt = Field(
        default=512, description="Most tokens of a target with its end token; longer ones are truncated and have none."
    )

    @property
    def window(self) -> int:
        """Tokens of a full pair."""
        return self.source + self.target

    def pair(self, source: np.ndarray, target: np.ndarray, marks: Marks) -> Piece | None:
        """The example; None without a source."""
        if not len(source):
            return None
        return Piece(source[: self.source], np.append(target[: self.target], np.int32(marks.end))[: self.target])
