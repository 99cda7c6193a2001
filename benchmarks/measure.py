"""Time commands as whole processes, describe the machine, and save results."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """A finished process: wall time and peak resident memory, which is at least that of this process."""

    seconds: float
    peak_bytes: int
    printed: str = ""


def run(command: list[str], **environment: str) -> Run:
    """Run a command to completion. A failure is an error that shows its output."""
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
    return Run(seconds, usage.ru_maxrss * 1024, printed)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    seconds = [round(run.seconds, 3) for run in runs]
    return {
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "peak_megabytes": round(max(run.peak_bytes for run in runs) / 1e6),
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """Description of the machine and its software; `limits` names the fewer instruction sets that the environment allows."""
    import torch

    from pairform.blocks.functional import processor

    found = {"cpu": processor.name(), "instructions": processor.instructions(), "cores": os.cpu_count()}
    found |= {"python": platform.python_version(), "torch": torch.__version__}
    if device != "cpu":
        return {"gpu": torch.cuda.get_device_name(), **found}
    return found | ({"limits": limited} if (limited := limits()) else {})


def limits() -> str:
    """The fewer instruction sets that the environment allows torch or its libraries; empty for the whole CPU."""
    from pairform.blocks.functional.processor import LIMITS

    return ", ".join(sorted({os.environ[name].upper() for name in ("ATEN_CPU_CAPABILITY", *LIMITS) if os.environ.get(name)}))


def apart(host: Mapping[str, Any]) -> str:
    """What sets results apart: the name of the GPU, or the limits of the CPU; empty for those of a whole CPU."""
    if "gpu" in host:
        return str(host["gpu"])
    return f"limited to {host['limits']}" if "limits" in host else ""


def file_name(name: str, host: Mapping[str, Any]) -> str:
    """The name of a result, or of a figure, with what sets it apart."""
    return "-".join([name, *apart(host).lower().replace(",", "").split()])


def peers(threads: int) -> dict[str, Any]:
    """Additional description for a comparison with transformers."""
    return {"transformers": version("transformers"), "threads": threads}


def save(name: str, result: dict[str, Any], folder: Path | None = RESULTS, device: str = "cpu") -> dict[str, Any]:
    """Print a result and, if there is a folder, write it there, under its `file_name`."""
    host = machine(device)
    result = {"machine": {**host, **result.pop("machine", {})}, **result}
    text = json.dumps(result, indent=2) + "\n"
    print(text, flush=True)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        (folder / f"{file_name(name, host)}.json").write_text(text)
    return result
