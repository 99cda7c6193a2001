"""Pages of documentation as code: their fenced blocks, and what each shows as output."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block. Behind its language may stand `file=NAME`: the page says, in the paragraph `before`, to save it so."""

    language: str
    file: str | None
    text: str
    line: int
    before: str


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the lines shown below it."""

    line: str
    shown: list[str]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)

    @property
    def fails(self) -> bool:
        return any(line.lower().startswith("error:") for line in self.shown)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        files = [option.removeprefix("file=") for option in options]
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        yield Block(language, files[0] if files else None, match["text"], text.count("\n", 0, match.start()) + 2, before)


def commands(block: Block) -> list[Command]:
    """In a console block commands start with `$`; in a bash or sh block every line is one."""
    found: list[Command] = []
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        if block.language in ("bash", "sh") and line.strip():
            found.append(Command(line, []))
        elif line.startswith("$ "):
            found.append(Command(line[2:], []))
        elif line.strip():
            found[-1].shown.append(line)
    return found


def links(page: Path) -> list[Path]:
    """What the page links to inside the repository."""
    return [page.parent / target for target in LINK.findall(page.read_text("utf-8"))]


def missing_line(shown: list[str], printed: str) -> str | None:
    """The first shown line that was not printed after those before it; `...` stands for anything, also for whole lines."""
    rest = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in shown:
        pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        if pattern != ".*" and not any(re.fullmatch(pattern, candidate) for candidate in rest):
            return line
    return None
