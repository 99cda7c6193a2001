"""The command line: commands about specs here, others in the `cli_` files beside it."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pairform.cli.blocks import blocks
from pairform.cli.carry import carry
from pairform.cli.convert import convert, plan
from pairform.cli.examples import examples
from pairform.cli.generate import generate
from pairform.cli.options import Drawn, Json, Settings, Spec, diagram_form, parse_set, print_json, torch_dtype
from pairform.cli.presets import presets
from pairform.cli.study import study
from pairform.cli.weights import export, extract, verify

UsageError: Any = typer.BadParameter.__base__
"""What Typer raises for wrong usage; which module it lives in depends on Typer's version."""

INVALID = re.compile(r"Invalid value(?: for (?P<where>.+?))?: (?P<rest>.*)", re.DOTALL)
"""How Typer begins what it says of an argument."""

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
    """Taken before the command; `main` looks for --debug itself."""


def show(spec: Spec, settings: Settings = None, drawn: Drawn = None, as_json: Json = False) -> None:
    """Show a spec as a tree or a diagram.

    With --json, print its expanded form: no `extends`, defaults written out.
    """
    from pairform.cli.display.outline import print_spec, with_layers

    if drawn:
        from pairform import diagram

        print(diagram(read_spec(spec, settings), diagram_form(drawn), title=spec), end="")
    elif as_json:
        print_json(expanded_form(spec, settings))
    else:
        print_spec(spec, expanded_form(spec, settings) if is_preset(spec, settings) else with_layers(read_spec(spec, settings)))


def diff(old: Spec, new: Spec, drawn: Drawn = None, as_json: Json = False) -> None:
    """Compare two specs, as a table or in a diagram of the second."""
    from pairform.cli.display.printing import print_diff
    from pairform.registry.merge import difference

    if drawn:
        from pairform import diagram

        print(diagram(new, diagram_form(drawn), old=old, title=f"{new} against {old}"), end="")
        return
    found = difference(expanded_form(old), expanded_form(new))
    if as_json:
        print_json({path: {"old": was, "new": now} for path, (was, now) in found.items()})
    else:
        print_diff(old, new, found)


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default the schema is printed.")
    ] = None,
) -> None:
    """Write the JSON Schema of specs, for use in editors."""
    from pairform import schema as make
    from pairform.registry import write_text

    text = json.dumps(make(), indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def inspect(
    spec: Spec,
    settings: Settings = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in the batch.")] = 1,
    source_length: Annotated[int, typer.Option(min=1, help="Tokens per sequence that the encoder reads.")] = 512,
    target_length: Annotated[int, typer.Option(min=1, help="Tokens per sequence that the decoder reads or writes.")] = 128,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures in the batch. Their tokens count as source tokens.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Dtype of cached keys and values: float32, bfloat16, float16 or float64.")
    ] = "bfloat16",
    as_json: Json = False,
) -> None:
    """Count parameters, FLOPs and cache bytes of a spec, by part.

    Nothing is allocated. FLOPs are those of one forward pass.
    """
    from pairform import inspect as measure
    from pairform.cli.display.printing import print_inspection

    found = measure(
        read_spec(spec, settings),
        batch=batch,
        source_length=source_length,
        target_length=target_length,
        pictures=pictures,
        dtype=torch_dtype(dtype),
    )
    if as_json:
        print_json(found.document())
    else:
        print_inspection(spec, found)


def is_preset(ref: str, settings: list[str] | None = None) -> bool:
    """Whether an expanded form is at hand, so that no block and no torch has to be imported."""
    from pairform.registry.documents import presets

    return not settings and ref in presets()


def expanded_form(ref: str, settings: list[str] | None = None) -> dict[str, Any]:
    from pairform.registry.documents import expanded

    document: dict[str, Any] = expanded(ref) if is_preset(ref, settings) else read_spec(ref, settings).document()
    return document


def read_spec(ref: str, settings: list[str] | None) -> Any:
    from pairform import load_spec

    return load_spec(ref, parse_set(settings))


for command in (presets, blocks, show, diff, schema, inspect, plan, convert, verify, export, extract, generate, carry):
    app.command(epilog=examples(command.__name__))(command)
app.add_typer(study, name="study")


def main() -> None:
    """Run the command line. Exit 0: done, 1: the work failed, 2: wrong usage, 130: interrupted."""
    try:
        code = app(prog_name="pairform", standalone_mode=False)
    except UsageError as error:
        code = error.exit_code
        message = error.format_message()
        if message.startswith("Usage: "):  # the help, for want of arguments
            print(message, file=sys.stderr)
        else:
            tell([usage_line(error, message)])
    except typer.Abort:
        code = 130
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        code = 1
        tell(error_lines(error))
    sys.exit(code or 0)


def tell(lines: list[str]) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)


def usage_line(error: Any, message: str) -> str:
    """What Typer says of wrong usage, in the form of all other errors."""
    from pydantic import ValidationError

    from pairform.registry.errors import cut_end, printable
    from pairform.registry.validation import found_and_expected

    parts = INVALID.fullmatch(message)
    where, rest = (parts["where"] or "", parts["rest"]) if parts else ("", message)
    if isinstance(error.__cause__, ValidationError):
        rest = found_and_expected(error.__cause__)
    told = cut_end(": ".join(filter(None, (where.replace("'", ""), rest.strip()))).rstrip("."), 1500)
    command = error.ctx.command_path if error.ctx else "pairform"
    return f"{printable(told)}. `{command} --help` says what it takes."


def error_lines(error: Exception) -> list[str]:
    """What went wrong, in one line for each cause."""
    from pairform.registry.errors import PairformError, cut_end, printable

    if isinstance(error, PairformError):
        return error.lines()
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    hint = "" if isinstance(error, OSError) else " (`pairform --debug ...` shows where it arose)"
    return [printable(cut_end(text, 1500)) + hint]
