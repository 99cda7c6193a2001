"""Two processes, connected by gloo, that run a test module's checks one after the other: starting them takes longer."""

import importlib
import json
import traceback
from pathlib import Path
from typing import Any

from tests.forked import PATIENCE, fork, free_port, kill_session

Outcomes = dict[str, str]
"""What went wrong, by the names of the checks that failed and the process."""


def run_checks(module: str, folder: Path, count: int = 2) -> Outcomes:
    """Run every `check_...` function of `module` with a `World` and a folder of its own, in `count` processes."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [fork(work, module, folder, rank, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(count)]
    for process in processes:
        process.join(PATIENCE)
    outcomes: Outcomes = {}
    for rank, process in enumerate(processes):
        if process.is_alive():
            kill_session(process)
            outcomes[f"process {rank}"] = "it did not end"
        elif process.exitcode:
            outcomes[f"process {rank}"] = f"it ended with {process.exitcode}"
        results = folder / f"{rank}.json"
        outcomes |= json.loads(results.read_text()) if results.exists() else {}
    return outcomes


def work(module: str, folder: Path, rank: int) -> None:
    from pairform.training.parallel import start

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
