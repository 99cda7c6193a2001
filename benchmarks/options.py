"""The options that all benchmarks share."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import RESULTS


@dataclass(frozen=True)
class Options:
    """How to run.

    quick:   tiny shapes, to see that a script works; nothing is kept.
    results: where results go; None keeps none.
    only:    names of the cases to run, all where empty.
    alone, case, folder: what a process of its own is to do, see `benchmarks.cases`.
    """

    threads: int
    runs: int | None
    device: str
    quick: bool
    results: Path | None
    only: tuple[str, ...] = ()
    alone: str | None = None
    case: dict[str, Any] | None = None
    folder: Path | None = None


def parse(description: str | None, arguments: list[str] | None = None) -> Options:
    """Read the command line, and let torch use as many threads as it says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None, help="default: one for each core; one if quick")
    parser.add_argument("--runs", type=int, default=None, help="turns of every setting (default: the case's own)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, only to see that it works; keeps no result")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--only", nargs="*", default=(), metavar="CASE", help="cases by name (default: all)")
    for name in ("--alone", "--case", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    read = parser.parse_args(arguments)
    if read.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {read.device}: this machine has no GPU that torch can use")
    read.threads = read.threads or (1 if read.quick else os.cpu_count() or 1)
    torch.set_num_threads(read.threads)
    return Options(
        read.threads,
        read.runs,
        read.device,
        read.quick,
        None if read.quick else read.results,
        tuple(read.only),
        read.alone,
        json.loads(read.case) if read.case else None,
        Path(read.folder) if read.folder else None,
    )
