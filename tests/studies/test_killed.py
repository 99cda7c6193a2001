"""A large study whose runner is killed."""

import random
import time
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import trials_of
from tests.forked import ended, start_pairform
from tests.studies.small_study import write_study

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
    command, said = ("study", "run", file, "--jobs", "2"), tmp_path / "said"
    begun = start_pairform(*command, said=said)
    while len(list(folder.glob("*/result.json"))) < enough:
        assert begun.is_alive(), said.read_text()
        time.sleep(0.1)
    begun.kill()
    ended(begun)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert enough <= len(before) < COUNT
    assert ended(start_pairform(*command, said=said)) == 0, said.read_text()
    trials = trials_of(tmp_path / "study")
    assert len(trials) == len({trial.name for trial in trials}) == COUNT
    assert {trial.status for trial in trials} == {"done"}
    kept = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= len(before) - 2  # of each of the two at work, the result may have been written and the trial not
    assert sum(trial.attempts for trial in trials) <= COUNT + 2
