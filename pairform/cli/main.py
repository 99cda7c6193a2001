"""The command line: every command with its examples, and how errors are reported.

To add a command, write a function in this package and enter it in `COMMANDS`.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from pairform.cli.adapt import adapt
from pairform.cli.blocks import blocks
from pairform.cli.chat import chat
from pairform.cli.convert import convert, plan
from pairform.cli.data import data
from pairform.cli.generate import generate
from pairform.cli.hub import card, push
from pairform.cli.specs import diff, eject, inspect, presets, schema, show
from pairform.cli.study import study
from pairform.cli.weights import carry, export, extract, verify

UsageError: Any = typer.BadParameter.__base__
"""Typer's exception for wrong usage; its module depends on Typer's version."""

INVALID = re.compile(r"Invalid value(?: for (?P<where>.+?))?: (?P<rest>.*)", re.DOTALL)
"""Typer's message about an argument."""

COMMANDS: Mapping[Callable[..., None], tuple[str, ...]] = {
    presets: ("pairform presets",),
    blocks: ("pairform blocks norm", "pairform blocks norm rmsnorm"),
    show: ("pairform show t5gemma-2b-2b", "pairform show t5gemma-2b-2b --set decoder.depth=12 --json"),
    diff: ("pairform diff gemma-2-2b gemma-2-9b",),
    schema: ("pairform schema --out pairform.schema.json", "pairform schema study --out study.schema.json"),
    inspect: ("pairform inspect t5gemma-9b-2b --source-length 1024",),
    eject: ("pairform eject t5gemma-2b-2b --out model.py",),
    plan: ("pairform plan --encoder gemma-large --decoder gemma-small",),
    convert: ("pairform convert --encoder gemma-large --decoder gemma-small --out pair",),
    verify: ("pairform verify pair",),
    export: ("pairform export pair --out pair-transformers",),
    extract: ("pairform extract pair --part encoder --out encoder",),
    generate: (
        'pairform generate pair --text "the quick brown fox"',
        'pairform generate pair --ids "5 17 3" --do-sample --top-p 0.9 --seed 1',
        "pairform generate pair --inputs questions.jsonl --out answers.jsonl",
    ),
    chat: ("pairform chat pair --max-new-tokens 200",),
    card: ("pairform card pair --license gemma",),
    push: ("pairform push pair owner/pair --private --dry-run",),
    carry: ("pairform carry pair --set decoder.layer.branches.feed_forward.name=mlp --out pair-mlp",),
}
"""Every command, in the order of `--help`, with the examples at the end of its own help; a test runs them in this order."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pair any encoder with any decoder: write architectures as JSON, initialise them from decoder-only checkpoints.",
)


def print_version(asked: bool) -> None:
    if asked:
        from pairform import __version__

        print(f"pairform {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Goes before the command.")] = False,
) -> None:
    """Options before the command. `main` looks for --debug itself."""


for command, examples in COMMANDS.items():
    # after a backspace, click keeps the lines of an epilog as they are
    app.command(epilog="\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in examples)]))(command)
app.add_typer(data, name="data")
app.add_typer(study, name="study")
app.add_typer(adapt, name="adapt")


def main() -> None:
    """Run the command line. Exit 0: done, 1: the work failed, 2: wrong usage, 130: interrupted."""
    try:
        code = app(prog_name="pairform", standalone_mode=False)
    except UsageError as error:
        code = error.exit_code
        message = error.format_message()
        if message.startswith("Usage: "):  # the help text, printed if there are no arguments
            print(message, file=sys.stderr)
        else:
            print_errors([usage_line(error, message)])
    except typer.Abort:
        code = 130
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        code = 1
        print_errors(error_lines(error))
    sys.exit(code or 0)


def print_errors(lines: list[str]) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)


def usage_line(error: Any, message: str) -> str:
    """Typer's message about wrong usage, in the form of all other errors."""
    from pydantic import ValidationError

    from pairform.registry.errors import cut_end, printable
    from pairform.registry.validation import found_and_expected

    parts = INVALID.fullmatch(message)
    where, rest = (parts["where"] or "", parts["rest"]) if parts else ("", message)
    if isinstance(error.__cause__, ValidationError):
        rest = found_and_expected(error.__cause__)
    text = cut_end(": ".join(filter(None, (where.replace("'", ""), rest.strip()))).rstrip("."), 1500)
    command = error.ctx.command_path if error.ctx else "pairform"
    return f"{printable(text)}{'' if text.endswith('?') else '.'} See `{command} --help`."


def error_lines(error: Exception) -> list[str]:
    """The message of an error, one line per problem."""
    from pairform.registry.errors import PairformError, cut_end, printable

    if isinstance(error, PairformError):
        return error.lines()
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    hint = "" if isinstance(error, OSError) else " (`pairform --debug ...` shows the traceback)"
    return [printable(cut_end(text, 1500)) + hint]
