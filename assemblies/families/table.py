"""Checkpoint families as data: a table of names and a function between configurations and specs, both ways."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pairform.assemblies.families.generation import with_tokens
from pairform.assemblies.specs.canonical import differences
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Row:
    """A tensor's name in the family's files and in our modules; `{layer}` is a number, any other placeholder a word."""

    theirs: str
    ours: str


class NameTable:
    """Rows read in both directions.

    spellings: beginnings of names in files of another age, each with what the rows say in its place; taken one after another.
    spares:    other names that a tensor may have where its own is not there, and ours for it.
    unread:    beginnings of names of tensors that change nothing that we compute; placeholders as in rows.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        spellings: tuple[tuple[str, str], ...] = (),
        unread: tuple[str, ...] = (),
        spares: tuple[Row, ...] = (),
    ) -> None:
        rows = tuple(rows)
        self._to_ours = [(row.theirs, row.ours) for row in rows]
        self._to_theirs = [(row.ours, row.theirs) for row in rows]
        self._spellings = spellings
        self._unread = unread
        self._spares = [(row.theirs, row.ours) for row in spares]

    def ours(self, theirs: str) -> str | None:
        return translate(self._respelt(theirs), self._to_ours)

    def reads(self, theirs: str) -> bool:
        name = self._respelt(theirs)
        return not any(pattern(unread).match(name) for unread in self._unread)

    def _respelt(self, name: str) -> str:
        for old, new in self._spellings:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        return name

    def spare(self, theirs: str) -> str | None:
        return translate(self._respelt(theirs), self._spares)

    def theirs(self, ours: str) -> str | None:
        return translate(ours, self._to_theirs)


@cache
def pattern(template: str) -> re.Pattern[str]:
    """What finds names like `template`; compiled when a name is first looked for, most families being for other models."""
    parts = PLACEHOLDER.split(template)
    words = {"layer": r"\d+"}
    made = [f"(?P<{part}>{words.get(part, '[a-z]+')})" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile("".join(made))


def translate(name: str, rows: Iterable[tuple[str, str]]) -> str | None:
    for known, template in rows:
        if match := pattern(known).fullmatch(name):
            return template.format(**match.groupdict())
    return None


@dataclass(frozen=True)
class Family:
    """How transformers stores the models of one `model_type`.

    to_spec and to_config translate config.json (`spec` and `config` are what callers use); a spec that `to_config` cannot say
    is found by reading it back.
    base_prefix starts the names of all tensors but the head's in folders of models with a head, and of none without.
    written is the table of names to write with, where it depends on the spec; absent, the one that is read with.
    copies are tensors that some files hold a second time: names of theirs, each with that of the tensor that is read.
    """

    model_type: str
    names: NameTable
    to_spec: Callable[[Mapping[str, Any]], ModelSpec]
    to_config: Callable[[ModelSpec], dict[str, Any]]
    base_prefix: str = "model."
    written: Callable[[ModelSpec], NameTable] | None = None
    copies: Mapping[str, str] = field(default_factory=dict)

    def ours(self, theirs: str) -> str | None:
        """Our name for a tensor of theirs, or None for a name that the family does not have."""
        return self.names.ours(theirs) or self.names.ours(self.base_prefix + theirs)

    def reads(self, theirs: str) -> bool:
        """Whether a tensor of theirs is of account; if not, it is left in its file."""
        return self.names.reads(theirs) and self.names.reads(self.base_prefix + theirs)

    def spare(self, theirs: str) -> str | None:
        """Our name for the tensor that one of theirs stands for where it is missing, if it may stand for one."""
        return self.names.spare(theirs)

    def theirs(self, ours: str, spec: ModelSpec) -> str:
        """Their name for a tensor of ours."""
        name = (self.names if self.written is None else self.written(spec)).theirs(ours)
        if name is None:
            raise SpecError(Problem(ours, "a tensor that has no name there", f"only tensors that {self.model_type} has"))
        return name.removeprefix(self.base_prefix) if spec.head.name == "none" else name

    def spec(self, config: Mapping[str, Any]) -> ModelSpec:
        """The spec of a config.json. Special tokens at its top stand above those of the stacks inside it."""
        return with_tokens(self.to_spec(config), config)

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        """config.json for `spec`; a `SpecError` lists what the family's configuration cannot say."""
        config = self.to_config(spec)
        lost = differences(spec, self.spec(config))
        if lost:
            expected = f"what transformers' {self.model_type} can say"
            raise SpecError([Problem(path, f"{mine!r}", f"{expected}: {theirs!r}") for path, (mine, theirs) in lost.items()])
        return config
