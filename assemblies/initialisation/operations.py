"""How a tensor of a new model is made of a source's, as plain data."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Strict

from pairform.blocks.functional.initializers import Constant, Normal
from pairform.registry import PositiveInt, Spec

Shape = Annotated[tuple[int, ...], Strict(False)]


class Copy(Spec):
    """An unchanged copy of the source."""

    name: Literal["copy"] = "copy"

    def fits(self, source: Shape, target: Shape) -> bool:
        """Whether it makes a tensor of the target's shape from one of the source's."""
        return source == target

    @property
    def summary(self) -> str:
        return "copy"


class MeanHeads(Spec):
    """Key or value heads averaged over groups of `group` neighbours, to fewer."""

    name: Literal["mean_heads"] = "mean_heads"
    head_dim: PositiveInt
    group: PositiveInt

    def fits(self, source: Shape, target: Shape) -> bool:
        whole = target[0] % self.head_dim == 0
        return whole and source == (target[0] * self.group, *target[1:])

    @property
    def summary(self) -> str:
        return f"mean of {self.group} heads"


class RepeatHeads(Spec):
    """Each key or value head `times` times in a row, to more; attention computes the same."""

    name: Literal["repeat_heads"] = "repeat_heads"
    head_dim: PositiveInt
    times: PositiveInt

    def fits(self, source: Shape, target: Shape) -> bool:
        whole = source[0] % self.head_dim == 0
        return whole and target == (source[0] * self.times, *source[1:])

    @property
    def summary(self) -> str:
        return f"each head {self.times} times"


class Rows(Spec):
    """The first `kept` rows of the source, then rows drawn from `initial` if the target has more (a vocabulary's size)."""

    name: Literal["rows"] = "rows"
    kept: PositiveInt
    initial: Annotated[Constant | Normal, Field(discriminator="name")]

    def fits(self, source: Shape, target: Shape) -> bool:
        return source[1:] == target[1:] and self.kept <= min(source[0], target[0])

    @property
    def summary(self) -> str:
        return f"first {self.kept} rows"


class VocabularyRows(Spec):
    """Each row as the plan's new vocabulary of the source says: a copy of an old row, the mean of several, or drawn."""

    name: Literal["vocabulary_rows"] = "vocabulary_rows"
    initial: Annotated[Constant | Normal, Field(discriminator="name")]

    def fits(self, source: Shape, target: Shape) -> bool:
        return source[1:] == target[1:]

    @property
    def summary(self) -> str:
        return "rows of the new vocabulary"


class ScaledRow(Spec):
    """One row of the source times `factor`, rounded to the source's dtype as the embedding rounds it."""

    name: Literal["scaled_row"] = "scaled_row"
    row: Annotated[int, Field(ge=0)]
    factor: float

    def fits(self, source: Shape, target: Shape) -> bool:
        return source[1:] == target and self.row < source[0]

    @property
    def summary(self) -> str:
        return f"row {self.row} times {self.factor:g}"


class Parts(Spec):
    """The parts `kept`, of `size` each, of a source that has one for each layer along its first or second axis."""

    name: Literal["parts"] = "parts"
    axis: Literal[0, 1]
    size: PositiveInt
    kept: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False), Field(min_length=1)]

    def fits(self, source: Shape, target: Shape) -> bool:
        if not self.axis < len(source) == len(target):
            return False
        others = (*source[: self.axis], *source[self.axis + 1 :]) == (*target[: self.axis], *target[self.axis + 1 :])
        whole = target[self.axis] == len(self.kept) * self.size
        return others and whole and max(self.kept) < source[self.axis] / self.size == source[self.axis] // self.size

    @property
    def summary(self) -> str:
        return f"parts of {len(self.kept)} layers"


class Fresh(Spec):
    """No source: values from a named distribution."""

    name: Literal["fresh"] = "fresh"
    initial: Annotated[Constant | Normal, Field(discriminator="name")]

    @property
    def summary(self) -> str:
        if isinstance(self.initial, Constant):
            return f"constant {self.initial.value:g}"
        return f"normal, std {self.initial.std:g}"


Operation: TypeAlias = Annotated[
    Copy | MeanHeads | RepeatHeads | Rows | VocabularyRows | ScaledRow | Parts | Fresh, Field(discriminator="name")
]
