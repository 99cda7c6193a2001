"""The commands that run studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli_options import Json, Settings, parse_set, print_json
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.records import Trial

study = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Compare variants of a model: train each, measure each.")
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that a study was run in.")]


@study.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study, as JSON.")],
    settings: Settings = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at once, each in a process of its own.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write; else FILE without .json.")] = None,
    executor: Annotated[str, typer.Option(help="local (processes), slurm, or submitit (its jobs, here).")] = "local",
    slurm: Annotated[list[str] | None, typer.Option("--slurm", metavar="NAME=VALUE", help="A setting of Slurm's jobs.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too, into the trials' folders.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Begin anew what failed in an earlier run.")] = False,
    as_json: Json = False,
) -> None:
    """Run the trials that are not done yet; after a kill, run it again and it goes on."""
    import sys

    from pairform.experiments.planning import read_study
    from pairform.experiments.running import run_study

    target = file.with_suffix("") if out is None else out
    read = read_study(file, parse_set(settings))
    ended = 0

    def report(trial: "Trial") -> None:
        nonlocal ended
        ended += 1
        if not as_json:
            error = f": {trial.error.strip().splitlines()[-1]}" if trial.error else ""
            print(printable(f"{ended:>4}  {trial.status:<7} {trial.name}{error}"), flush=True)

    trials = run_study(
        read,
        target,
        source=file.parent,
        jobs=jobs,
        retry=retry,
        executor=executor,
        cluster=parse_set(slurm),
        tensorboard=tensorboard,
        command=["pairform", *sys.argv[1:]],
        report=report,
    )
    show(target, as_json)
    if any(trial.status == "failed" for trial in trials):
        raise typer.Exit(1)


@study.command()
def status(directory: Folder, as_json: Json = False) -> None:
    """How many trials of each variant reached what, and the means of those that are done."""
    show(directory, as_json)


@study.command()
def report(directory: Folder) -> None:
    """Write the study's report, one HTML page, into its folder."""
    from pairform.experiments.report import report as write

    print(write(directory))


def show(directory: Path, as_json: bool) -> None:
    from pairform.experiments.summary import summarise

    rows = summarise(directory)
    if as_json:
        print_json({"study": str(directory), "variants": rows})
        return
    table = [("variant", "trials", "loss", "difference", "accuracy", "parameters", "FLOPs", "match"), *map(cells, rows)]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    for line in zip(*([cell.ljust(max(map(len, column))) for cell in column] for column in columns), strict=True):
        print("  ".join(line).rstrip())


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A variant's line of the table."""
    found = row["results"]
    return (
        printable(row["variant"]),
        ", ".join(f"{count} {status}" for status, count in row["trials"].items()),
        with_interval(found.get("loss")),
        with_interval(row.get("difference", {}).get("loss"), "+"),
        with_interval(found.get("accuracy")),
        *(f"{found[name]['mean']:,.0f}" if name in found else "" for name in ("parameters", "flops")),
        f"{row['match']['by']} {row['match']['difference']:+.2%}" if "match" in row else "",
    )


def with_interval(measured: dict[str, Any] | None, sign: str = "") -> str:
    if measured is None:
        return ""
    half = measured["half_width"]
    return f"{measured['mean']:{sign}.4f}" + ("" if half is None else f" ±{half:.4f}")
