"""The commands of `adapt`: run, plan, status, export and fields."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.options import (
    FieldPath,
    Json,
    Out,
    OutFormat,
    Overwrite,
    Slurm,
    check_format,
    given_path,
    parse_set,
    parse_slurm,
    print_json,
)
from pairform.registry.errors import PairformError, Problem, printable

if TYPE_CHECKING:
    from pairform.training.cluster import Cluster

adapt = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a model by a recipe: adapt, pretrain, fine-tune.")

REPORTED = 10
"""Seconds that a process waits for another that reports an error, unless a signal has told it to end. torchrun ends it sooner,
when the other has ended; if this one ended first, torchrun would end the other before it has reported."""


@adapt.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", parser=given_path, help="The recipe as JSON.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", parser=given_path, help="Folder of the run.")],
    executor: Annotated[
        str, typer.Option(help="local (this process), slurm (submit a job), or submitit (a job on this machine).")
    ] = "local",
    slurm: Slurm = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the submitted job has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model, or resume the run in the folder. torchrun starts it in several processes, --executor slurm as a job.

    After an interruption, run the same command to continue.
    """
    from pairform.training.cluster import cluster_of

    settings = parse_slurm(slurm)
    cluster = cluster_of(executor, settings)
    if cluster is not None:
        submit_job(recipe, out, cluster, settings, wait, as_json)
        return
    from pairform.assemblies.modeling.processes import PeerError
    from pairform.training.adaptation.interruption import received
    from pairform.training.adaptation.run import InterruptedRunError
    from pairform.training.adaptation.run import adapt as train
    from pairform.training.optimization.spikes import DivergedError
    from pairform.training.parallel import environment

    try:
        train(recipe, out)
    except DivergedError as error:
        remedy = "Lower optimizer.learning_rate, or set skip_step. Training resumes from the last checkpoint."
        raise PairformError(Problem(str(out), str(error), "a finite loss", remedy)) from None
    except InterruptedRunError:  # in all processes
        if environment()[0] == 0:
            raise
        raise typer.Exit(1) from None
    except PeerError:  # the process that failed reports it
        if not received:
            time.sleep(REPORTED)
        raise typer.Exit(1) from None
    if environment()[0] == 0:
        show(out, as_json)


def submit_job(recipe: Path, out: Path, cluster: "Cluster", settings: dict[str, Any], wait: bool, as_json: bool) -> None:
    """Submit a run as a job. After `wait`, exit with 1 unless the run is done."""
    from pairform.training.adaptation.jobs import submit
    from pairform.training.adaptation.run_folder import status_of
    from pairform.training.cluster import wait as wait_for

    job = submit(recipe, out, cluster, settings)
    if wait:
        wait_for(job)
    show(out, as_json)
    if wait and status_of(out)["status"] != "done":
        raise typer.Exit(1)


@adapt.command()
def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", parser=given_path, help="The recipe as JSON.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change one value of the recipe, as in batch.micro=2. Repeatable."),
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Number of processes; by default, the recipe's.")] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="Accelerator of each process, as in h100; by default, this machine's.")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(min=1e-3, metavar="TFLOPS", help="Peak TFLOP/s of each process, instead of an accelerator.")
    ] = None,
    mfu: Annotated[float, typer.Option(help="Model FLOPs utilisation to expect, above 0 and at most 1.")] = 0.4,
    as_json: Json = False,
) -> None:
    """Estimate the memory, FLOPs, time and disk of a run. No weight is read, and the data need not be prepared."""
    from pairform.cli.display.run_plan import print_run_plan
    from pairform.training.adaptation.planning import plan_run

    patch = parse_set(settings)
    found = plan_run(recipe, patch=patch, processes=processes, mfu=mfu, peak_tflops=peak, accelerator=accelerator)
    if as_json:
        print_json(found.document())
    else:
        print_run_plan(found)


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


@adapt.command()
def fields(path: FieldPath = None, as_json: Json = False) -> None:
    """List the fields of a recipe: type, default and meaning."""
    from pairform.cli.fields import show_fields
    from pairform.training.adaptation.recipe import Recipe

    show_fields(Recipe, path, as_json)


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
