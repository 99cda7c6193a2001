"""Checkpoint families as data: a table of tensor names and a translation between config.json and specs, in both directions."""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from pairform.assemblies.families.tokens import with_tokens
from pairform.assemblies.specs.canonical import differences
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Row(NamedTuple):
    """A tensor's name in the family's files and in our modules. `{layer}` and `{expert}` stand for numbers,
    other placeholders for words."""

    theirs: str
    ours: str


class Fused(NamedTuple):
    """A tensor in the family's files that holds several of ours.

    theirs:     its name, as in a `Row`.
    ours:       the names of its parts, concatenated along the first axis. With an `{expert}` that is not in `theirs`, these are
                the parts for each expert, and the stored tensor has a leading axis by expert.
    transposed: whether the last two axes are exchanged in the file, as in the weights of transformers' Conv1D.
    leading:    whether the stored tensor has a leading axis of one.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    leading: bool = False

    @property
    def by_expert(self) -> bool:
        """Whether one tensor of theirs holds those of all experts."""
        return "{expert}" not in self.theirs and any("{expert}" in part for part in self.ours)

    def parts(self, known: Container[str]) -> list[list[str]]:
        """The names of the parts that are `known`, in the file's order: a list for each expert, or one list."""
        if not self.by_expert:
            return [[part for part in self.ours if part in known]]
        found: list[list[str]] = []
        while each := [name for part in self.ours if (name := part.replace("{expert}", str(len(found)))) in known]:
            found.append(each)
        return found


@dataclass(frozen=True)
class NameTable:
    """Rows read in both directions. Of several that fit a name the first counts.

    spellings: prefixes of names in files of other versions, each with the prefix in the rows; applied one after another.
    unread:    prefixes of the names of tensors that have no effect; placeholders as in rows.
    spares:    other names of a tensor, used where its own name is absent, and ours for it.
    """

    rows: Sequence[Row | Fused]
    spellings: tuple[tuple[str, str], ...] = ()
    unread: tuple[str, ...] = ()
    spares: tuple[Row, ...] = ()

    def row(self, theirs: str) -> Row | Fused | None:
        """The row of a tensor of theirs, with its placeholders filled in."""
        return row_of(self._respelt(theirs), self.rows)

    def ours(self, theirs: str) -> str | None:
        """Our name for a tensor of theirs that is one of ours."""
        row = self.row(theirs)
        return row.ours if isinstance(row, Row) else None

    def spare(self, theirs: str) -> str | None:
        """Our name for the tensor that one of theirs replaces if it is missing."""
        row = row_of(self._respelt(theirs), self.spares)
        return row.ours if isinstance(row, Row) else None

    def holder(self, ours: str) -> Row | Fused | None:
        """The row of a tensor of ours, with its placeholders filled in."""
        for row in self.rows:
            for template in (row.ours,) if isinstance(row, Row) else row.ours:
                if match := pattern(template).fullmatch(ours):
                    return filled(row, match.groupdict())
        return None

    def theirs(self, ours: str) -> str | None:
        """The name of the tensor of theirs that is, or holds, one of ours."""
        row = self.holder(ours)
        return None if row is None else row.theirs

    def reads(self, theirs: str) -> bool:
        """Whether a tensor of theirs has an effect."""
        name = self._respelt(theirs)
        return not any(pattern(unread).match(name) for unread in self.unread)

    def _respelt(self, name: str) -> str:
        for old, new in self.spellings:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        return name


@cache
def pattern(template: str) -> re.Pattern[str]:
    """A pattern for names like `template`, compiled on first use: a process reads few of the families."""
    parts = PLACEHOLDER.split(template)
    # other placeholders match one part of a name: letters and underscores, no dot
    words = {"layer": r"\d+", "expert": r"\d+"}
    made = [f"(?P<{part}>{words.get(part, '[a-z]+')})" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile("".join(made))


def row_of(theirs: str, rows: Sequence[Row | Fused]) -> Row | Fused | None:
    matches = ((row, match) for row in rows if (match := pattern(row.theirs).fullmatch(theirs)))
    return next((filled(row, match.groupdict()) for row, match in matches), None)


def filled(row: Row | Fused, words: Mapping[str, str]) -> Row | Fused:
    """A row with `words` in place of placeholders. The expert of one that is stored by expert stays a placeholder."""
    if isinstance(row, Row):
        return Row(row.theirs.format(**words), row.ours.format(**words))
    kept = {**words, "expert": "{expert}"} if row.by_expert else words
    return row._replace(theirs=row.theirs.format(**kept), ours=tuple(part.format(**kept) for part in row.ours))


@dataclass(frozen=True)
class Family:
    """How transformers stores the models of one `model_type`.

    Attributes:
        to_document: config.json as the document of a spec. Callers use `document` and `spec`.
        to_config: the rest of config.json for a spec. Callers use `config`, which reads it back to find what it cannot express.
        writes: whether a spec is stored as this family; of several families the first in `FAMILIES` is taken.
        base_prefix: of all tensors but the head's in folders of models with a head; folders of models without one lack it.
        written: the table of names to write with, if it depends on the spec.
        by_spec: whether that is also the table to read with.
        copies: tensors that some files hold twice: the copy's name, and the name of the tensor that is read.
        doubles: tensors to write twice for a spec: the copy's name, and the name of the tensor that is copied.
        by_names: a merge patch on a document for what the names of the tensors in the files say and config.json does not.
        constants: tensors to write for a spec beside the model's, by their names; none of them is read.
        zeros: tensors of ours that its files may lack, and that are zero then.
    """

    model_type: str
    names: NameTable
    to_document: Callable[[Mapping[str, Any]], dict[str, Any]]
    to_config: Callable[[ModelSpec], dict[str, Any]]
    writes: Callable[[ModelSpec], bool]
    base_prefix: str = "model."
    written: Callable[[ModelSpec], NameTable] | None = None
    by_spec: bool = False
    copies: Mapping[str, str] = field(default_factory=dict)
    doubles: Callable[[ModelSpec], Mapping[str, str]] | None = None
    by_names: Callable[[Mapping[str, Any], set[str]], dict[str, Any]] | None = None
    constants: Callable[[ModelSpec], Mapping[str, Tensor]] | None = None
    zeros: frozenset[str] = frozenset()

    def reading(self, spec: ModelSpec) -> "Family":
        """The family with the names that files of `spec` have."""
        return replace(self, names=self.written(spec)) if self.by_spec and self.written is not None else self

    def row(self, theirs: str) -> Row | Fused | None:
        """The row of a tensor of theirs; None for a name that the family does not have."""
        return self.names.row(theirs) or self.names.row(self.base_prefix + theirs)

    def ours(self, theirs: str) -> str | None:
        """Our name for a tensor of theirs that is one of ours; None for all others."""
        return self.names.ours(theirs) or self.names.ours(self.base_prefix + theirs)

    def reads(self, theirs: str) -> bool:
        """Whether a tensor of theirs has an effect; if not, it is ignored."""
        return self.names.reads(theirs) and self.names.reads(self.base_prefix + theirs)

    def spare(self, theirs: str) -> str | None:
        """Our name for the tensor that one of theirs replaces if it is missing."""
        return self.names.spare(theirs) or self.names.spare(self.base_prefix + theirs)

    def holder(self, ours: str, spec: ModelSpec) -> Row | Fused:
        """The row to write a tensor of ours with; `SpecError` if the family has no name for it."""
        row = (self.names if self.written is None else self.written(spec)).holder(ours)
        if row is None:
            raise SpecError(Problem(ours, "a tensor that has no name there", f"only tensors that {self.model_type} has"))
        return row._replace(theirs=row.theirs.removeprefix(self.base_prefix)) if spec.head.name == "none" else row

    def theirs(self, ours: str, spec: ModelSpec) -> str:
        """Their name for the tensor that is, or holds, one of ours."""
        return self.holder(ours, spec).theirs

    def document(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The document of a config.json's spec. Special tokens at its top take precedence over those of its stacks."""
        document = self.to_document(config)
        return document | {"tokens": with_tokens(document["tokens"], config)}

    def spec(self, config: Mapping[str, Any]) -> ModelSpec:
        """The spec of a config.json; a `SpecError` lists what is invalid."""
        return ModelSpec.read(self.document(config))

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        """config.json for `spec`; a `SpecError` lists what the family's configuration cannot express."""
        config = {"model_type": self.model_type, "initializer_range": spec.initializer_range} | self.to_config(spec)
        expected = f"what transformers' {self.model_type} can express"
        differing = differences(spec, self.spec(config)).items()
        if problems := [Problem(path, f"{mine!r}", f"{expected}: {theirs!r}") for path, (mine, theirs) in differing]:
            raise SpecError(problems)
        return config
