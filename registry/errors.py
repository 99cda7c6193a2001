"""Errors that say where something is wrong, what was found, what was expected and what to do."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    where:    a file, a JSON path (`decoder.layer.branches.self_attention.heads`) or a tensor's name.
    found:    what is there instead of what was expected; a clause of its own where `expected` is empty.
    remedy:   a sentence that says how to fix it.
    """

    where: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line of printable characters, of bounded length whatever the input was."""
        place = f"{printable(cut_middle(self.where, 500))}: " if self.where else ""
        found, expected, remedy = (printable(cut_end(part, 450)) for part in (self.found, self.expected, self.remedy))
        message = f"found {found}, expected {expected}" if expected else found
        return f"{place}{message}.{' ' + remedy if remedy else ''}"

    def inside(self, prefix: str) -> "Problem":
        """The same problem with its path relative to a document that contains this one at `prefix`."""
        return Problem(join_path(prefix, self.where), self.found, self.expected, self.remedy)

    def of(self, subject: str) -> "Problem":
        """The same problem of one of several documents, which `subject` names before the path."""
        return Problem(f"{subject}: {self.where}" if self.where else subject, self.found, self.expected, self.remedy)


class PairformError(Exception):
    """Base of every error that a user's input can cause. `problems` lists every cause; the message shows the first ones."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The message: one line per problem, as many as fit in `MESSAGE` characters, and the number of the others."""
        lines: list[str] = []
        room = MESSAGE
        for problem in self.problems:
            line = str(problem)
            room -= len(line) + 1
            if room < 0 and lines:
                more = len(self.problems) - len(lines)
                return [*lines, f"... and {more} more problem{'s' if more > 1 else ''}"]
            lines.append(line)
        return lines


class SpecError(PairformError):
    """A spec, or the document it was read from, is invalid."""


class CheckpointError(PairformError):
    """A checkpoint folder cannot be read, or does not match its spec."""


class OutputError(PairformError):
    """A file or folder cannot be written."""


class InputError(PairformError):
    """A call's arguments do not fit the model."""


def not_installed(where: str, package: str, extra: str | None) -> Problem:
    """An optional package is missing. extra: the extra of pairform that installs it; None: there is none."""
    wanted = package if extra is None else f"'pairform[{extra}]'"
    return Problem(where, f"`{package}` is not installed", "", f"Run: pip install {wanted}")


def in_file(file: str, error: PairformError) -> list[Problem]:
    """An error's problems, each with the file it is in before its path."""
    found = []
    for problem in error.problems:
        where = ": ".join(part for part in (file, problem.where.removeprefix(file)) if part)
        found.append(Problem(where, problem.found, problem.expected, problem.remedy))
    return found


def join_path(*parts: str) -> str:
    """`join_path("a", "b[0]", "c") == "a.b[0].c"`; empty parts are skipped."""
    path = ""
    for part in parts:
        if part:
            path += part if not path or part.startswith("[") else f".{part}"
    return path


MESSAGE = 1950
"""Largest length of an error's message in characters."""

PATH = 1000
"""Length in characters to which a path is cut."""

LONGEST_NAME = 100
"""Longest name for which similar ones are suggested: the cost of a comparison grows with the square of the length."""


def shorten(value: object, limit: int = 80) -> str:
    """`repr(value)` cut to about `limit` characters, at a cost that does not grow with the size of `value`."""
    text = ""
    for piece in pieces(value, limit):
        text += piece
        if len(text) > limit:
            return cut_end(text, limit)
    return text


def pieces(value: object, limit: int) -> Iterator[str]:
    """`repr(value)` piece by piece. limit: the most characters that will be read."""
    if isinstance(value, str | bytes):
        yield repr(value[: limit + 1])
    elif isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write out very large numbers
        yield f"a whole number of {value.bit_length()} bits"
    elif isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else ""
            yield from pieces(key, limit)
            yield ": "
            yield from pieces(item, limit)
        yield "}"
    elif type(value) in (list, tuple):
        items: Iterable[object] = value  # type: ignore[assignment]
        yield "[" if isinstance(value, list) else "("
        for number, item in enumerate(items):
            yield ", " if number else ""
            yield from pieces(item, limit)
        yield "]" if isinstance(value, list) else ")"
    else:
        try:
            yield repr(value)
        except Exception:  # an object of another library, in whatever state
            yield f"an object of type {type(value).__name__}"


def suggest(name: object, known: Iterable[str], write: Callable[[str], str] = repr) -> str:
    """`Did you mean 'x' or 'y'?` for names that are close to `name`, or nothing."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return ""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(write, near))}?" if near else ""


def printable(text: str) -> str:
    """`text` with the characters escaped that a terminal interprets: control characters, direction marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except newline and tab, marks that change the direction of text, surrogates."""


def shown(text: str) -> str:
    """Text of several lines, in any language, with the characters of `CONTROLS` escaped."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def cut_end(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_middle(text: str, limit: int) -> str:
    """Cut in the middle: a path's beginning says which document, its end which file or field."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2 - 1) :]}"
