"""Errors that say where something is wrong, what was found, what was expected and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    `where` is a file, a JSON path (`decoder.layer.branches.self_attention.heads`) or a tensor's name.
    """

    where: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{place}found {self.found}, expected {self.expected}.{remedy}"

    def inside(self, prefix: str) -> "Problem":
        """The same problem seen from a document that holds this one at `prefix`."""
        return Problem(join_path(prefix, self.where), self.found, self.expected, self.remedy)


class PairformError(Exception):
    """Base of every error that a user's input can cause. `problems` lists each cause."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SpecError(PairformError):
    """A spec, or the document it was read from, does not hold together."""


class CheckpointError(PairformError):
    """A checkpoint folder cannot be read, or does not match its spec."""


class OutputError(PairformError):
    """A folder cannot be written where it was asked for."""


class InputError(PairformError):
    """A call's arguments do not fit the model."""


def join_path(*parts: str) -> str:
    """`join_path("a", "b[0]", "c") == "a.b[0].c"`; empty parts are skipped."""
    path = ""
    for part in parts:
        if part:
            path += part if not path or part.startswith("[") else f".{part}"
    return path


PATH = 1000
"""Characters that a path is cut to: its end says which file it is."""


def shorten(value: object, limit: int = 80) -> str:
    """`value` as it would be written in Python, cut to about `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
