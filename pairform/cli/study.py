"""The commands of `study`: run, plan, status, report, export and fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.interruption import stop_message
from pairform.cli.options import FieldPath, Json, Slurm, given_path, parse_named, parse_slurm, print_json
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.execution.progress import Ended

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

    with stop_message("interrupted; run the same command to continue"):
        from pairform.experiments.execution.run import run_study
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
            command=["pairform", *sys.argv[1:]],
            report=report,
        )
    show(target, as_json)
    if any(trial.status == "failed" for trial in trials):
        raise typer.Exit(1)


@study.command()
def plan(
    file: File,
    settings: Settings = None,
    out: StudyFolder = None,
    difference: Annotated[
        float | None, typer.Option(min=0, help="A difference of loss: how many seeds it needs to be found.")
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
        print_forecast(found, difference)


@study.command()
def status(directory: Folder, as_json: Json = False) -> None:
    """Show the status of each variant's trials, and means over finished ones."""
    show(directory, as_json)


@study.command()
def report(directory: Folder) -> None:
    """Write the study's report, an HTML page, into its folder."""
    from pairform.experiments.report import report as write

    print(write(directory))


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


def progress_line(ended: "Ended") -> str:
    """As in `3/12  done    mqa-seed0  loss 3.1766  2 min left`."""
    from pairform.cli.display.text import duration

    width, trial = len(str(ended.total)), ended.trial
    line = f"{ended.done:>{width}}/{ended.total}  {trial.status:<7} {trial.name}"
    if trial.error:
        return f"{line}: {trial.error.strip().splitlines()[-1]}"
    line += "" if ended.loss is None else f"  loss {ended.loss:.4f}"
    return line if ended.seconds_left is None else f"{line}  {duration(ended.seconds_left)} left"


def show(directory: Path, as_json: bool) -> None:
    from pairform.cli.display.factors import factor_rows, print_factors
    from pairform.cli.display.ladder import ladder_rows, print_ladder
    from pairform.experiments.results.ladder import ladder_results
    from pairform.experiments.results.records import has_factors
    from pairform.experiments.results.summary import summarise

    rows, factors, laws = summarise(directory), [], ladder_results(directory)
    if has_factors(directory):  # whose reader imports torch
        from pairform.experiments.study.factor_results import factor_results

        factors = factor_results(directory)
    if as_json:
        parts = {"factors": factor_rows(factors), "ladder": ladder_rows(laws)}
        print_json({"study": str(directory), "variants": rows} | {name: part for name, part in parts.items() if part})
        return
    table = [
        ("variant", "trials", "loss", "difference", "accuracy", "parameters", "FLOPs", "size vs first"),
        *map(cells, rows),
    ]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    for line in zip(*([cell.ljust(max(map(len, column))) for cell in column] for column in columns), strict=True):
        print(printable("  ".join(line).rstrip()))
    for row in rows if not factors else ():
        if "loss" in row.get("difference", {}):
            print(printable(f"{row['variant']}: {row['difference']['loss']['finding']}"))
    print_factors(factors)
    print_ladder(laws)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A variant's row of the table."""
    found = row["results"]
    trials = sum(row["trials"].values())
    return (
        printable(row["variant"]),
        ", ".join(f"{count} {status}" for status, count in row["trials"].items()),
        with_interval(found.get("loss"), trials),
        with_interval(row.get("difference", {}).get("loss"), trials, "+"),
        with_interval(found.get("accuracy"), trials),
        *(f"{found[name]['mean']:,.0f}" if name in found else "" for name in ("parameters", "flops")),
        matched(row["match"]) if "match" in row else "",
    )


def matched(match: dict[str, Any]) -> str:
    """As in `parameters +0.31% (tolerance 1%)`."""
    allowed = "" if match["tolerance"] is None else f" (tolerance {100 * match['tolerance']:g}%)"
    return f"{match['by']} {match['difference']:+.2%}{allowed}"


def with_interval(measured: dict[str, Any] | None, trials: int, sign: str = "") -> str:
    """A mean with its interval, and its number of seeds if not all trials are done."""
    if measured is None:
        return ""
    half, seeds = measured["half_width"], measured["seeds"]
    part = "" if seeds == trials else f" ({seeds} of {trials} seeds)"
    return f"{measured['mean']:{sign}.4f}" + ("" if half is None else f" ±{half:.4f}") + part
