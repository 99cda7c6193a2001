"""The sweep of a study that tunes its variants, and the comparison at one recipe, on the command line."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pairform.cli.display.printing import Sheet, print_wide
from pairform.experiments.results.sweeps import Sweep
from pairform.registry.errors import printable


def sweep_rows(sweeps: Iterable[Sweep]) -> list[dict[str, Any]]:
    """The sweeps as documents."""
    rows = []
    for sweep in sweeps:
        row = asdict(sweep) | {"remarks": sweep.remarks}
        row.pop("places")
        rows.append(row)
    return rows


def print_sweeps(sweeps: Iterable[Sweep]) -> None:
    """What each variant did best with, and what to know about that choice."""
    table = Sheet("variant", "sweep", "best")
    for sweep in sweeps:
        states = ", ".join(f"{count} {status}" for status, count in sweep.trials.items())
        table.add_row(sweep.variant, states, "" if sweep.chosen is None else sweep.chosen.name)
    print_wide(table)
    for sweep in sweeps:
        for remark in sweep.remarks:
            print(printable(f"{sweep.variant}: {remark}"))
