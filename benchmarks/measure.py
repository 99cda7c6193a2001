"""Commands timed as whole processes, and the machine they ran on."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """One finished process: wall time and its largest resident memory, which is never below that of this process."""

    seconds: float
    peak_bytes: int


def run(command: list[str], **environment: str) -> Run:
    """Run a command to its end; a failure is an error that shows what it printed."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{printed}")
    return Run(seconds, usage.ru_maxrss * 1024)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    seconds = [round(run.seconds, 3) for run in runs]
    return {
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "peak_megabytes": round(max(run.peak_bytes for run in runs) / 1e6),
    }


def machine() -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result beside the others and print it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"machine": machine(), **result}, indent=2) + "\n"
    path.write_text(text)
    print(text)
    return path
