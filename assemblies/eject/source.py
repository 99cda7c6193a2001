"""The file that is written: its classes and functions in order, and what of a spec has no written form."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any, TypeVar

from pairform.registry import Problem, Spec, join_path, shorten

T = TypeVar("T")
WIDTH = 128
"""Characters of the longest line."""
UNUSED = frozenset(("name", "kernel", "dropout", "drop_path", "final_dropout", "train_pad", "scale_given", "wide_output"))
"""Fields that change no result in float32 outside training."""


NUMBER = re.compile(r"\[\d+\]")
"""The number of a layer in a path."""


@dataclass
class Source:
    """Definitions by their text, so that equal blocks share one class.

    problems: values of the spec without a written form.
    """

    names: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def define(self, name: str, text: str, owner: str = "") -> str:
        """The name of the class or function that `text` defines as NAME: `name` if it is free, else with `owner` before it."""
        if text not in self.names:
            taken = set(self.names.values())
            candidates = [name, owner + name, *(f"{owner}{name}{number}" for number in range(2, len(taken) + 3))]
            self.names[text] = next(each for each in candidates if each not in taken)
        return self.names[text]

    def definitions(self) -> list[str]:
        return [text.replace("NAME", name, 1) for text, name in self.names.items()]

    def refuse(self, where: str, found: object, expected: str, remedy: str = "") -> None:
        """Record what has no written form, for the first of the layers that have it."""
        problem = Problem(where, f"{shorten(found)}, which has no written form", expected, remedy)
        kind = NUMBER.sub("", where), problem.found
        if all((NUMBER.sub("", each.where), each.found) != kind for each in self.problems):
            self.problems.append(problem)

    def only(self, spec: Spec, where: str, *written: str) -> None:
        """Refuse fields with a value other than the default, except those that are `written`."""
        for name, info in type(spec).model_fields.items():
            value = getattr(spec, name)
            if name not in UNUSED and name not in written and value != info.default:
                self.refuse(join_path(where, name), value, "nothing" if info.default is None else shorten(info.default))

    def form(self, forms: Mapping[str, T], spec: Any, where: str) -> T | None:
        """The form of the block that `spec` names; None if there is none, which is refused."""
        found = forms.get(spec.name)
        if found is None:
            self.refuse(where, spec.name, f"one of {', '.join(forms)}")
        return found

    def identifier(self, name: str, where: str) -> str:
        """A name of the spec that the file uses as an attribute."""
        if not (name.isascii() and name.isidentifier()) or iskeyword(name):
            self.refuse(where, name, "a name in ASCII that is no keyword of Python")
            return "refused"
        return name


def lines(*parts: str | Iterable[str], indent: int = 0) -> str:
    """Lines of a text, each part a line or several."""
    flat = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    return "\n".join(f"{' ' * indent}{line}" if line else "" for line in flat)


def call(before: str, arguments: Iterable[str], after: str = ")", *, indent: int = 8) -> str:
    """`before` with arguments and `after`, on one line if that fits, else with one argument per line."""
    arguments = list(arguments)
    line = f"{before}{', '.join(arguments)}{after}"
    if len(line) + indent <= WIDTH:
        return line
    pad = " " * indent
    return "\n".join([before, *(f"{pad}    {argument}," for argument in arguments), f"{pad}{after}"])


def chosen(name: str, kinds: list[int]) -> str:
    """The element of the tuple `name` for layer `index`, whose number is `kinds[index]`."""
    count = max(kinds) + 1
    if count == 1:
        return f"{name}[0]"
    for period in range(1, min(len(kinds), 12)):
        if all(kind == kinds[place % period] for place, kind in enumerate(kinds)):
            cycle = kinds[:period]
            return f"{name}[index % {count}]" if cycle == list(range(count)) else f"{name}[{tuple(cycle)}[index % {period}]]"
    if count > 10:
        return f"{name}[{kinds}[index]]"
    return f'{name}[int("{"".join(map(str, kinds))}"[index])]'
