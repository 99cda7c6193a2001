"""The command line as Markdown, read from Typer's commands."""

from collections.abc import Iterator
from typing import Any

import typer

from pairform.cli.main import app


def all_commands() -> str:
    return "\n\n".join(sections(typer.main.get_command(app), "pairform"))


def sections(command: Any, path: str) -> Iterator[str]:
    """A command's section, then those of the commands in it."""
    context = command.make_context(path.split()[-1], [], resilient_parsing=True)
    context.info_name = path
    if path != "pairform":
        yield f"## {path}"
    yield paragraphs(command.help or "")
    yield f":::{{code-block}} text\n{path} {' '.join(command.collect_usage_pieces(context))}\n:::"
    records = [each for parameter in command.get_params(context) if (each := record(parameter, context))]
    if records:
        yield "\n".join(["| argument or option | meaning |", "|---|---|", *records])
    if command.epilog:
        examples = [line.strip() for line in command.epilog.splitlines() if line.strip().startswith("pairform")]
        yield "Examples:\n\n:::{code-block} console\n" + "\n".join(f"$ {line}" for line in examples) + "\n:::"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from sections(command.get_command(context, name), f"{path} {name}")


def record(parameter: Any, context: Any) -> str:
    found = parameter.get_help_record(context)
    name, text = found or (parameter.make_metavar(context), getattr(parameter, "help", None) or "")
    return f"| `{cell(name)}` | {cell(text)} |" if name != "-h, --help" else ""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(each.replace("\b", "").split()) for each in text.split("\n\n"))
