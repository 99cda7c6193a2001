"""A plan of initialisation: where every target tensor comes from and where every source tensor goes, as plain data."""

import json
from collections import Counter
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from pairform.assemblies.initialisation.operations import Fresh, Operation, Shape
from pairform.assemblies.initialisation.options import DtypeName, Options
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Spec
from pairform.registry.html import Table, fragment

MOST_PIECES = 10_000
"""The most old tokens that spell a new one."""
Role = Literal["encoder", "decoder", "vision", "model"]
"""The role of a source; "model" is the single source of `carry`."""


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


def inline(value: Any) -> str:
    """A value of a spec in a table; None is absent."""
    return "absent" if value is None else json.dumps(value)


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

    def _repr_html_(self) -> str:
        """What a notebook shows: how the tensors of each part are made, the changes to the spec, and the notes."""
        parts: dict[tuple[str, str], list[int]] = {}
        for row in self.targets:
            parts.setdefault((row.target.partition(".")[0], row.kind), []).append(row.parameters)
        rows = [(part, kind, len(sizes), sum(sizes)) for (part, kind), sizes in parts.items()]
        dropped = self.totals["dropped"]
        rows += [("of the sources", "dropped", dropped["tensors"], dropped["parameters"])] if dropped["tensors"] else []
        edits = [(edit.path, inline(edit.before), inline(edit.after)) for edit in self.edits]
        return fragment(
            f"plan of {len(self.targets):,} tensors",
            Table(rows, ("part", "kind", "tensors", "parameters")),
            Table(edits, ("changes to the spec", "source", "new model")),
            notes=self.notes,
        )

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
