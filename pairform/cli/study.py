"""The commands of `study`: run, plan, stop, status, report, compare, export and fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.interruption import stop_message
from pairform.cli.options import FieldPath, Json, Slurm, given_path, parse_named, parse_slurm, print_json
from pairform.registry.errors import cut_end, cut_middle, printable

if TYPE_CHECKING:
    from pairform.experiments.execution.progress import Ended
    from pairform.experiments.results.sweeps import Recipe
    from pairform.experiments.study.factor_results import FactorResults

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
LONGEST_NAME, LONGEST_LINE = 80, 1000
"""Characters of a variant's name, and of a line about a trial."""
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
        )
    show(target, as_json)
    left = sum(trial.status not in ("done", "failed") for trial in trials)
    if left and not only:
        print(f"{left} trials are not done; run the same command to continue", file=sys.stderr)
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


def progress_line(ended: "Ended") -> str:
    """As in `3/12  done    mqa-seed0  loss 3.1766  2 min left`."""
    from pairform.cli.display.text import duration

    width, trial = len(str(ended.total)), ended.trial
    line = f"{ended.done:>{width}}/{ended.total}  {trial.status:<7} {trial.name}"
    if trial.error:
        return cut_end(f"{line}: {trial.error.strip().splitlines()[-1]}", LONGEST_LINE)
    line += "" if ended.loss is None else f"  loss {ended.loss:.4f}"
    return line if ended.seconds_left is None else f"{line}  {duration(ended.seconds_left)} left"


def show(directory: Path, as_json: bool) -> None:
    from pairform.cli.display.factors import factor_rows, print_factors
    from pairform.cli.display.ladder import ladder_rows, print_ladder
    from pairform.cli.display.tuning import print_sweeps, sweep_rows
    from pairform.experiments.results.ladder import ladder_results
    from pairform.experiments.results.summary import rules_of, summarise
    from pairform.experiments.results.sweeps import read_sweeps
    from pairform.experiments.statistics.rules import spoken

    sweeps, measures = read_sweeps(directory).values(), rules_of(directory).measures
    rows, factors = summarise(directory), effects_of(directory, "tuned")
    same = summarise(directory, "same_recipe") if sweeps else []
    laws = ladder_results(directory)
    same_factors = effects_of(directory, "same_recipe") if sweeps else []
    if as_json:
        found: dict[str, Any] = {"study": str(directory), "variants": rows}
        found |= {"factors": factor_rows(factors)} if factors else {}
        found |= {"ladder": ladder_rows(laws)} if laws else {}
        if sweeps:
            found["tuning"] = {"sweeps": sweep_rows(sweeps), "same_recipe": same}
            found["tuning"] |= {"same_recipe_factors": factor_rows(same_factors)} if same_factors else {}
        print_json(found)
        return
    others = [name for name in measures if name not in ("loss", "accuracy")]
    table = [
        ("variant", "trials", "loss", "difference", "accuracy", *map(spoken, others), "parameters", "FLOPs", "size vs first"),
        *(cells(row, others) for row in rows),
    ]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    for line in zip(*([cell.ljust(max(map(len, column))) for cell in column] for column in columns), strict=True):
        print(printable("  ".join(line).rstrip()))
    print_findings(rows, factors, measures)
    print_factors(factors)
    print_ladder(laws)
    if sweeps:
        if rows:
            print()
        print_sweeps(sweeps)
        if same:
            print("The results above are of each variant at its own best values. At those of the first variant:")
        print_findings(same, same_factors, measures)
        print_factors(same_factors)


def effects_of(directory: Path, recipe: "Recipe") -> "list[FactorResults]":
    """The effects of the study's factors, if it has any: their reader imports torch."""
    from pairform.experiments.results.records import has_factors

    if not has_factors(directory):
        return []
    from pairform.experiments.study.factor_results import factor_results

    return factor_results(directory, recipe=recipe)


def print_findings(rows: list[dict[str, Any]], factors: "list[FactorResults]", measures: Sequence[str]) -> None:
    """What was found of each variant; in a study of factors, that is said of the factors."""
    for row in rows if not factors else ():
        for found in (row["difference"][name] for name in measures if name in row.get("difference", {})):
            print(printable(f"{cut_middle(row['variant'], LONGEST_NAME)}: {found['finding']}"))
    for row in rows:
        if "also" in row:
            names = ", ".join(cut_middle(name, LONGEST_NAME) for name in row["also"])
            print(printable(f"{names}: the same model, training and weights as {cut_middle(row['variant'], LONGEST_NAME)}."))
        if "time_to_loss" in row:
            print(printable(f"{cut_middle(row['variant'], LONGEST_NAME)}: {row['time_to_loss']['finding']}"))


def cells(row: dict[str, Any], others: list[str]) -> tuple[str, ...]:
    """A variant's row of the table. others: measures besides loss and accuracy."""
    found = row["results"]
    trials = sum(row["trials"].values())
    return (
        cut_middle(printable(row["variant"]), LONGEST_NAME),
        ", ".join(f"{count} {status}" for status, count in row["trials"].items()),
        with_interval(found.get("loss"), trials),
        with_interval(row.get("difference", {}).get("loss"), trials, "+"),
        with_interval(found.get("accuracy"), trials),
        *(with_interval(found.get(name), trials) for name in others),
        *(f"{found[name]['mean']:,.0f}" if name in found else "" for name in ("parameters", "flops")),
        matched(row["match"]) if "match" in row else "",
    )


def matched(match: dict[str, Any]) -> str:
    """As in `parameters +0.31% (tolerance 1%)`."""
    allowed = "" if match["tolerance"] is None else f" (tolerance {100 * match['tolerance']:g}%)"
    return f"{match['by']} {match['difference']:+.2%}{allowed}{'' if match['matched'] else ' not matched'}"


def with_interval(measured: dict[str, Any] | None, trials: int, sign: str = "") -> str:
    """A mean with its interval, and its number of seeds if not all trials are done."""
    if measured is None:
        return ""
    half, seeds = measured["half_width"], measured["seeds"]
    part = "" if seeds == trials else f" ({seeds} of {trials} seeds)"
    return f"{measured['mean']:{sign}.4f}" + ("" if half is None else f" ±{half:.4f}") + part
