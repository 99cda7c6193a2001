"""The commands of `study`: run, plan, stop, status, report, compare, export and fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pairform.cli.display.remarks import print_remarks
from pairform.cli.display.study import progress_line, show
from pairform.cli.interruption import stop_message
from pairform.cli.options import FieldPath, Json, Slurm, given_path, parse_named, parse_slurm, print_json
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.execution.progress import Ended
    from pairform.experiments.results.records import Trial

study = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Compare variants of a model: train and measure each.")
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value of the study, as in training.steps=100. Repeatable."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", parser=given_path, help="The study as JSON.")]
StudyFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", parser=given_path, help="Folder of the study; by default, FILE without .json."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", parser=given_path, help="Folder of a study.")]


@study.command()
def run(
    file: File,
    settings: Settings = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of trials to run at once, in separate processes.")] = 1,
    out: StudyFolder = None,
    executor: Annotated[str, typer.Option(help="local (processes), slurm, or submitit (its jobs on this machine).")] = "local",
    slurm: Slurm = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard, into the trials' folders.")
    ] = False,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Also log to this project on Weights & Biases, through the package wandb."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run trials again that failed in an earlier run.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="VARIANT", help="Run only this variant's trials. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the trials that are not done. After an interruption, run the same command to continue."""
    import sys

    target = file.with_suffix("") if out is None else out
    patch, cluster = parse_named(settings, "--set", "training.steps=100"), parse_slurm(slurm)

    def report(ended: "Ended") -> None:
        if not as_json:
            print(printable(progress_line(ended)), flush=True)

    def announce(planned: "list[Trial]") -> None:
        if not as_json:
            print_remarks((trial.variant, trial.also, trial.remarks) for trial in planned)

    with stop_message("interrupted; run the same command to continue"):
        from pairform.experiments.execution.run import run_study
        from pairform.experiments.results.sweeps import sweeps_of
        from pairform.experiments.study.planning import read_study

        trials = run_study(
            read_study(file, patch),
            target,
            source=file.parent,
            jobs=jobs,
            retry=retry,
            only=only or None,
            executor=executor,
            cluster=cluster,
            tensorboard=tensorboard,
            wandb=wandb,
            command=["pairform", *sys.argv[1:]],
            report=report,
            announce=announce,
        )
    show(target, as_json)
    left = sum(trial.status not in ("done", "failed") for trial in trials)
    if left and not only:
        are = "trial is" if left == 1 else "trials are"
        print(f"{left} {are} not done; run the same command to continue", file=sys.stderr)
    # a setting that diverges is a result of a sweep, unless a variant has no other
    untuned = any(sweep.complete and sweep.best is None for sweep in sweeps_of(target, trials).values())
    if untuned or any(trial.status == "failed" and trial.stage != "sweep" for trial in trials):
        raise typer.Exit(1)


@study.command()
def plan(
    file: File,
    settings: Settings = None,
    out: StudyFolder = None,
    difference: Annotated[
        float | None, typer.Option(min=0, help="A difference in loss: how many seeds it needs to be found.")
    ] = None,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Build each model and time a step of its training.")] = True,
    as_json: Json = False,
) -> None:
    """Show what a study would take, and the smallest difference that it could find.

    The latter needs three finished trials of the first variant: run `study run FILE --only VARIANT` before.
    """
    from pairform.cli.display.forecast import forecast_rows, print_forecast
    from pairform.experiments.execution.forecast import forecast
    from pairform.experiments.study.planning import read_study

    target = file.with_suffix("") if out is None else out
    found = forecast(read_study(file, parse_named(settings, "--set", "training.steps=100")), file.parent, target, timed)
    if as_json:
        print_json(forecast_rows(found, difference))
    else:
        print_forecast(found, difference, file)


@study.command()
def status(
    directory: Folder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again whenever a trial changes, until all trials have ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the status of each variant's trials, and means over finished ones."""
    if not watch:
        show(directory, as_json)
        return
    import sys

    from rich.console import Console

    from pairform.experiments.results.following import changes

    with stop_message("stopped; the study goes on"):
        for _ in changes(directory):
            Console().clear()  # of a terminal
            show(directory, as_json)
            sys.stdout.flush()


@study.command()
def stop(
    directory: Folder,
    after_trials: Annotated[
        bool, typer.Option("--after-trials", help="Let the running trials finish, and start no others.")
    ] = False,
) -> None:
    """End the study's run and wait until it has ended; run the same command again to continue it."""
    from pairform.experiments.execution.stopping import Stop, request_stop

    with stop_message("not waiting any longer; the request to stop remains"):
        request_stop(directory, Stop.AFTER_TRIALS if after_trials else Stop.NOW)
    show(directory, as_json=False)


@study.command()
def report(
    directory: Folder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again whenever a trial changes, until all trials have ended.")
    ] = False,
) -> None:
    """Write the study's report, an HTML page, into its folder."""
    if not watch:
        from pairform.experiments.report import report as write

        print(printable(str(write(directory))))
        return
    with stop_message("stopped; the last report remains"):
        from pairform.experiments.report.watching import watch as follow

        follow(directory, lambda page: print(printable(str(page)), flush=True))


@study.command()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", parser=given_path, help="Folder of a study.")],
    other: Annotated[Path, typer.Argument(metavar="B", parser=given_path, help="Folder of another study.")],
    as_json: Json = False,
) -> None:
    """Show how two studies differ, and the losses of the variants that both have."""
    from pairform.cli.display.two_studies import comparison_document, print_comparison
    from pairform.experiments.results.two_studies import compare_studies

    found = compare_studies(one, other)
    if as_json:
        print_json(comparison_document(one, other, found))
    else:
        print_comparison(one, other, found)


@study.command()
def export(
    directory: Folder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", parser=given_path, help="File to write: .csv or .parquet.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a table with a row for each trial."""
    from pairform.experiments.results.export import export as write

    print(printable(str(write(directory, out, overwrite))))


@study.command()
def fields(path: FieldPath = None, as_json: Json = False) -> None:
    """List the fields of a study file: type, default and meaning."""
    from pairform.cli.fields import show_fields
    from pairform.experiments.study.spec import StudySpec

    show_fields(StudySpec, path, as_json)
