"""Options that all benchmarks share."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config

from benchmarks.measure import RESULTS, limits


@dataclass(frozen=True)
class Options:
    """Settings of a benchmark run.

    quick:   tiny shapes, to check that a script works; no result is saved.
    results: folder for results; None saves none.
    only:    names of the cases to run; empty means all.
    checkpoints: folder in which checkpoints are written once and stay, for several runs; None: a temporary one.
    alone, case, folder: the task of a separate process, see `benchmarks.cases`.
    """

    threads: int
    runs: int | None
    device: str
    quick: bool
    results: Path | None
    only: tuple[str, ...] = ()
    checkpoints: Path | None = None
    alone: str | None = None
    case: dict[str, Any] | None = None
    folder: Path | None = None


def parse(description: str | None, arguments: list[str] | None = None) -> Options:
    """Parse the command line and set torch's number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None, help="default: one per core, or one with --quick")
    parser.add_argument("--runs", type=int, default=None, help="runs of every setting (default: depends on the case)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to check that it works; saves no result")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for results")
    parser.add_argument("--only", nargs="*", default=(), metavar="CASE", help="names of cases to run (default: all)")
    parser.add_argument("--checkpoints", type=Path, help="keep checkpoints in this folder (default: in a temporary one)")
    for name in ("--alone", "--case", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    read = parser.parse_args(arguments)
    if read.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {read.device}: this machine has no GPU that torch can use")
    read.threads = read.threads or (1 if read.quick else os.cpu_count() or 1)
    torch.set_num_threads(read.threads)
    if limits():  # torch 2.13 also finds code compiled for other instruction sets: wrong numbers
        torch._inductor.config.force_disable_caches = True
    return Options(
        read.threads,
        read.runs,
        read.device,
        read.quick,
        None if read.quick else read.results,
        tuple(read.only),
        read.checkpoints,
        read.alone,
        json.loads(read.case) if read.case else None,
        Path(read.folder) if read.folder else None,
    )
