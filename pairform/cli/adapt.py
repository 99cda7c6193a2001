"""The commands of `adapt`: run, status and export."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pairform.cli.options import Json, Out, OutFormat, Overwrite, check_format, given_path, print_json
from pairform.registry.errors import PairformError, Problem, printable

adapt = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a model by a recipe: adapt, pretrain, fine-tune.")

REPORTED = 10
"""Seconds that a process waits for another that reports an error, unless a signal has told it to end. torchrun ends it sooner,
when the other has ended; if this one ended first, torchrun would end the other before it has reported."""


@adapt.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", parser=given_path, help="The recipe as JSON.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", parser=given_path, help="Folder of the run.")],
    as_json: Json = False,
) -> None:
    """Train a model, or resume the run in the folder. torchrun starts it in several processes.

    After an interruption, run the same command to continue.
    """
    from pairform.assemblies.modeling.processes import PeerError
    from pairform.training.adaptation.interruption import received
    from pairform.training.adaptation.run import adapt as train
    from pairform.training.optimization.spikes import DivergedError
    from pairform.training.parallel import environment

    try:
        train(recipe, out)
    except DivergedError as error:
        remedy = "Lower optimizer.learning_rate, or set skip_step. Training resumes from the last checkpoint."
        raise PairformError(Problem(str(out), str(error), "a finite loss", remedy)) from None
    except PeerError:  # the process that failed reports it
        if not received:
            time.sleep(REPORTED)
        raise typer.Exit(1) from None
    if environment()[0] == 0:
        show(out, as_json)


@adapt.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="RUN", parser=given_path, help="Folder of a run.")], as_json: Json = False
) -> None:
    """Show how far a run is, and its last losses."""
    show(directory, as_json)


@adapt.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="RUN", parser=given_path, help="Folder of a run.")],
    out: Out,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint; by default, the last.")] = None,
    last: Annotated[
        bool, typer.Option("--no-average", help="Export the weights of the step, not the recipe's average.")
    ] = False,
    format_: OutFormat = "pairform",
    overwrite: Overwrite = False,
) -> None:
    """Write the model of a run as a folder that `pairform.load` and, with --format transformers, transformers read."""
    from pairform.training.adaptation.export import export as write

    write(directory, out, step=step, average=not last, format=check_format(format_), overwrite=overwrite)
    print(printable(str(out)))


def show(directory: Path, as_json: bool) -> None:
    from pairform.training.adaptation.run_folder import status_of

    found = status_of(directory)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if value is not None:
            text = f"{value:,}" if isinstance(value, int | float) else str(value)
            print(printable(f"{name.replace('_', ' ') + ':':20} {text}"))
