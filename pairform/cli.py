"""The command line: commands about specs here, others in the `cli_` files beside it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pairform.cli_blocks import blocks
from pairform.cli_carry import carry
from pairform.cli_convert import convert, plan
from pairform.cli_examples import examples
from pairform.cli_generate import generate
from pairform.cli_options import Drawn, Json, Settings, Spec, diagram_form, parse_set, print_json, torch_dtype
from pairform.cli_presets import presets
from pairform.cli_study import study
from pairform.cli_weights import export, extract, verify

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
    from pairform import diagram
    from pairform.printing import print_spec

    loaded = read_spec(spec, settings)
    if drawn:
        print(diagram(loaded, diagram_form(drawn), title=spec), end="")
    elif as_json:
        print_json(loaded.document())
    else:
        print_spec(spec, loaded)


def diff(old: Spec, new: Spec, drawn: Drawn = None, as_json: Json = False) -> None:
    """Compare two specs, as a table or in a diagram of the second."""
    from pairform import diagram, load_spec
    from pairform import diff as differences
    from pairform.printing import print_diff

    before, after = load_spec(old), load_spec(new)
    found = differences(before, after)
    if drawn:
        print(diagram(after, diagram_form(drawn), old=before, title=f"{new} against {old}"), end="")
    elif as_json:
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
    from pairform.printing import print_inspection

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


def read_spec(ref: str, settings: list[str] | None) -> Any:
    from pairform import load_spec

    return load_spec(ref, parse_set(settings))


for command in (presets, blocks, show, diff, schema, inspect, plan, convert, verify, export, extract, generate, carry):
    app.command(epilog=examples(command.__name__))(command)
app.add_typer(study, name="study")


def main() -> None:
    """Run the command line. Exit 0: done, 1: the work failed, 2: wrong usage."""
    try:
        app(prog_name="pairform")
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        for line in error_lines(error):
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def error_lines(error: Exception) -> list[str]:
    """What went wrong, in one line for each cause."""
    from pairform.registry.errors import PairformError

    if isinstance(error, PairformError):
        return error.lines()
    if isinstance(error, OSError):
        return [str(error)]
    return [f"{type(error).__name__}: {error} (`pairform --debug ...` shows where it arose)"]
