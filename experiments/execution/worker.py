"""What a trial's own process does: run the trial and write down how it ended."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.results.records import DATA, RESULT, STUDY, TrialFolder
from pairform.experiments.results.writing import remove_partials, write_json
from pairform.experiments.study.spec import StudySpec
from pairform.registry import PairformError, Problem, SpecError, read_json
from pairform.training.data.digests import fingerprint
from pairform.training.loop import DivergedError, train
from pairform.training.metrics import open_log


@dataclass(frozen=True)
class Work:
    """How the trials of the study in folder `study` are run; `source` is the folder that data is read from."""

    study: Path
    source: Path
    tensorboard: bool = False


def run_trial(work: Work, name: str) -> None:
    """Run a trial unless it is done.

    A trial that an earlier process began and did not end is begun anew: its numbers follow from its seed. One that another
    process still works on is waited for.
    """
    folder = TrialFolder(work.study, name)
    with folder.locked():
        remove_partials(folder.path)
        trial = folder.read()
        if trial.status in ("done", "failed"):
            return
        trial = trial.at("running", attempts=1)
        folder.write(trial)
        try:
            spec = StudySpec.read(read_json(work.study / STUDY))
            contents = spec.data.gather(work.source)
            if fingerprint(contents.digests) != trial.data:
                raise SpecError(
                    Problem("data", "other contents of its files", f"those of {DATA}", "Put them back and --retry.")
                )
            examples = contents.open(load_spec(dict(trial.spec)))
            with open_log(folder.path, work.tensorboard) as log:
                result = train(trial.spec, trial.training, trial.seed, examples, latency=spec.latency, log=log)
            write_json(folder.path / RESULT, result)
        except (PairformError, DivergedError) as error:
            folder.write(trial.at("failed", str(error)))
        except Exception:
            folder.write(trial.at("failed", traceback.format_exc()))
        else:
            folder.write(trial.at("done"))
