"""The work of a trial's own process: train and measure its model, and record how it ended."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.execution.trial import train
from pairform.experiments.results.records import DATA, RESULT, STUDY, TrialFolder
from pairform.experiments.study.spec import StudySpec
from pairform.registry import PairformError, Problem, SpecError, read_json
from pairform.registry.run_folders import remove_partials, write_json
from pairform.training.data.batches import fingerprint
from pairform.training.metrics import open_log
from pairform.training.optimization.spikes import DivergedError


@dataclass(frozen=True)
class Work:
    """What trials run on.

    study:       the study's folder.
    source:      folder to which the data's paths are relative.
    tensorboard: also log metrics for TensorBoard.
    """

    study: Path
    source: Path
    tensorboard: bool = False


def run_trial(work: Work, name: str) -> None:
    """Run a trial unless it has ended already.

    A trial that an earlier process left unfinished starts again from the beginning: its numbers depend only on its seed. If
    another process is still running it, this waits.
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
                    Problem(
                        "data", "other contents of its files", f"those of {DATA}", "Restore the files, then run with --retry."
                    )
                )
            examples = contents.open(load_spec(dict(trial.spec)))
            with open_log(folder.path, work.tensorboard) as log:
                result = train(trial, examples, spec.latency, log)
            write_json(folder.path / RESULT, result)
        except (PairformError, DivergedError) as error:
            folder.write(trial.at("failed", str(error)))
        except Exception:
            folder.write(trial.at("failed", traceback.format_exc()))
        else:
            folder.write(trial.at("done"))
