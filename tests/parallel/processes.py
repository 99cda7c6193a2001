"""Two processes, connected by gloo, that run a test module's checks one after the other: starting them takes longer."""

import importlib
import json
import os
import socket
import traceback
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import get_context

PATIENCE = 600
"""Seconds after which the processes are killed. On an idle machine a module's checks take about fifteen."""
Outcomes = dict[str, str]
"""What went wrong, by the names of the checks that failed and the process."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run_checks(module: str, folder: Path, count: int = 2) -> Outcomes:
    """Run every `check_...` function of `module` with a `World` and a folder of its own, in `count` processes."""
    context = get_context("spawn")
    port = free_port()
    processes = [context.Process(target=work, args=(module, folder, rank, count, port), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    outcomes: Outcomes = {}
    for rank, process in enumerate(processes):
        if process.is_alive():
            process.kill()
            outcomes[f"process {rank}"] = "it did not end"
        elif process.exitcode:
            outcomes[f"process {rank}"] = f"it ended with {process.exitcode}"
        results = folder / f"{rank}.json"
        outcomes |= json.loads(results.read_text()) if results.exists() else {}
    return outcomes


def work(module: str, folder: Path, rank: int, count: int, port: int) -> None:
    from pairform.training.parallel import start

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    tests: Any = importlib.import_module(module)
    failed: Outcomes = {}
    with start(device="cpu") as world:
        for name in checks(tests):
            own = folder / name
            own.mkdir(exist_ok=True)
            try:
                getattr(tests, name)(world, own)
            except Exception:
                failed[f"{name} in process {rank}"] = traceback.format_exc()
                (folder / f"{rank}.json").write_text(json.dumps(failed))
            world.barrier()


def checks(module: Any) -> list[str]:
    return [name for name in vars(module) if name.startswith("check_")]
