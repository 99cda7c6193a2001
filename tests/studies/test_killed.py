"""A large study whose runner is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import trials_of
from tests.studies.small_study import write_study

RUN = [sys.executable, "-m", "pairform", "study", "run"]


COUNT, SEED = 12, 7


def test_trials_killed_at_some_moment_are_each_run_once(tmp_path: Path) -> None:
    """At a moment that follows from the seed.

    Whatever was done at the kill stays as it was, and a trial that another process still works on is waited for.
    """
    fresh: dict[str, Any] = {"steps": 0, "batch": 8}
    grid = {"initializer_range": [0.01 * step for step in range(1, COUNT // 2 + 1)]}
    file = write_study(tmp_path, {"training": fresh, "grid": grid, "variants": {"merged": None}, "data": {"validation": 1}})
    folder = tmp_path / "study" / "trials"
    enough = random.Random(SEED).randrange(1, 2 * COUNT // 3)
    print(f"seed {SEED}: killed when {enough} trials are done")
    begun = subprocess.Popen([*RUN, str(file), "--jobs", "2"], stdout=subprocess.DEVNULL)
    while len(list(folder.glob("*/result.json"))) < enough:
        assert begun.poll() is None
        time.sleep(0.1)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert enough <= len(before) < COUNT
    subprocess.run([*RUN, str(file), "--jobs", "2"], check=True, stdout=subprocess.DEVNULL)
    trials = trials_of(tmp_path / "study")
    assert len(trials) == len({trial.name for trial in trials}) == COUNT
    assert {trial.status for trial in trials} == {"done"}
    kept = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= len(before) - 2  # of each of the two at work, the result may have been written and the trial not
    assert sum(trial.attempts for trial in trials) <= COUNT + 2
