"""A plan of initialisation: where every target tensor comes from and where every source tensor goes, as plain data."""

from collections import Counter
from math import prod
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, Strict, model_validator

from pairform.assemblies.initialisation.options import DtypeName, Options
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.functional.initializers import Constant, Normal
from pairform.registry import PositiveInt, Spec

Shape = Annotated[tuple[int, ...], Strict(False)]
MOST_PIECES = 10_000
"""The most old tokens that spell a new one."""
Role = Literal["encoder", "decoder", "vision", "model"]
"""The role of a source; "model" is the single source of `carry`."""


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


class Source(Spec):
    """A tensor of one of the sources, by our name for it there."""

    role: Role
    tensor: str

    def __str__(self) -> str:
        return f"{self.role}: {self.tensor}"


class TargetRow(Spec):
    """How one tensor of the new model is made."""

    target: str
    shape: Shape
    dtype: DtypeName
    operation: Operation
    source: Source | None = None

    @model_validator(mode="after")
    def _fresh_or_from_a_source(self) -> Self:
        if (self.source is None) != isinstance(self.operation, Fresh):
            raise ValueError("a source for every operation but fresh")
        return self

    @property
    def kind(self) -> str:
        """copied, derived or fresh."""
        return {"copy": "copied", "fresh": "fresh"}.get(self.operation.name, "derived")

    @property
    def parameters(self) -> int:
        return prod(self.shape)


class SourceRow(Spec):
    """The targets of one tensor of a source; `dropped` is the reason if there are none."""

    source: Source
    shape: Shape
    targets: Annotated[tuple[str, ...], Strict(False)] = ()
    dropped: str | None = None


class SourceFolder(Spec):
    """Where a source is, and the numbers of its layers that are kept."""

    path: str
    revision: str | None = None
    layers: Annotated[tuple[int, ...], Strict(False)]


VocabularyRow = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False), Field(max_length=MOST_PIECES)]


class NewVocabulary(Spec):
    """The vocabulary that replaces a source's.

    rows:      for each new token id, the old ids whose mean embedding it gets; none for a new embedding.
    old:       SHA-256 of the source's tokenizer.json.
    tokenizer: folder of the tokenizer that replaces it; None: the source's, with the kept tokens alone.
    new:       SHA-256 of its tokenizer.json.
    """

    rows: Annotated[tuple[VocabularyRow, ...], Strict(False)]
    old: str
    tokenizer: str | None = None
    new: str | None = None

    @property
    def summary(self) -> str:
        means, new = sum(len(row) > 1 for row in self.rows), sum(not row for row in self.rows)
        return f"{len(self.rows) - means - new:,} copied, {means:,} means of several, {new:,} new"


class Edit(Spec):
    """A change that no weight shows: a field of the spec in the source and in the new model; None is absent."""

    path: str
    before: Any = None
    after: Any = None


class Plan(Spec):
    """Everything that `execute` needs. Each target and each source tensor is in it exactly once.

    edits:        where the new stacks' specs are not their sources'.
    notes:        advice on the options.
    vocabularies: of the sources whose vocabulary is replaced.
    """

    spec: ModelSpec
    options: Options
    sources: dict[Role, SourceFolder]
    targets: Annotated[tuple[TargetRow, ...], Strict(False)]
    origins: Annotated[tuple[SourceRow, ...], Strict(False)]
    edits: Annotated[tuple[Edit, ...], Strict(False)] = ()
    notes: Annotated[tuple[str, ...], Strict(False)] = ()
    vocabularies: dict[Role, NewVocabulary] = Field(default_factory=dict)

    def __repr__(self) -> str:
        totals = ", ".join(f"{total['tensors']} {kind}" for kind, total in self.totals.items() if total["tensors"])
        return f"<Plan of {len(self.targets)} tensors: {totals}; the whole is in .document()>"

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        """Tensors and parameters that are copied, derived, fresh and (of the sources) dropped."""
        tensors: Counter[str] = Counter()
        parameters: Counter[str] = Counter()
        for row in self.targets:
            tensors[row.kind] += 1
            parameters[row.kind] += row.parameters
        for origin in self.origins:
            if origin.dropped is not None:
                tensors["dropped"] += 1
                parameters["dropped"] += prod(origin.shape)
        kinds = ("copied", "derived", "fresh", "dropped")
        return {kind: {"tensors": tensors[kind], "parameters": parameters[kind]} for kind in kinds}
