"""Docstrings of Google's style as Markdown, and the meanings of the fields that they list."""

import re
from dataclasses import dataclass, field

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):\n((?:(?:  .*)?(?:\n|$))+)", re.MULTILINE)
ITEM = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): +(?P<text>\S.*(?:\n[ \t]+.*)*)", re.MULTILINE)
PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}


@dataclass
class Docstring:
    """The text without its sections; the sections by title: items by name, or under no name one text."""

    text: str
    sections: dict[str, dict[str, str]] = field(default_factory=dict)


def parse(text: str) -> Docstring:
    parsed = Docstring("")
    for match in SECTION.finditer(text):
        parsed.sections[match[1]] = items(dedented(match[2]), whole=match[1] == "Returns")
    paragraphs = SECTION.sub("", text).strip().split("\n\n")
    for paragraph in list(paragraphs):
        if " ".join(part[0] for part in ITEM.finditer(paragraph)).split() == paragraph.split() != []:
            parsed.sections.setdefault("Attributes", {}).update(items(paragraph))
            paragraphs.remove(paragraph)
    parsed.text = "\n\n".join(paragraphs)
    return parsed


def items(text: str, whole: bool = False) -> dict[str, str]:
    if whole:
        return {"": " ".join(text.split())}
    return {match["names"]: " ".join(match["text"].split()) for match in ITEM.finditer(text)}


def dedented(text: str) -> str:
    lines = text.strip("\n").splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def markdown(parsed: Docstring) -> str:
    parts = [parsed.text]
    for section in ("Args", "Returns", "Raises"):
        if found := parsed.sections.get(section):
            listed = [f"- {names_of(names)}: {text}" if names else text for names, text in found.items()]
            parts.append(f"**{TITLES[section]}**\n\n" + "\n".join(listed))
    return PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", "\n\n".join(parts))


def names_of(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))
