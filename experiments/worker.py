"""What a trial's own process does: run the trial and write down how it ended."""

import traceback
from pathlib import Path

from pairform.assemblies.load_spec import load_spec
from pairform.experiments.files import fingerprint
from pairform.experiments.records import DATA, METRICS, RESULT, STUDY, TrialFolder, write_json
from pairform.experiments.study_spec import StudySpec
from pairform.experiments.training import DivergedError, train, write_lines
from pairform.registry import PairformError, Problem, SpecError, read_json


def run_trial(study: Path, source: Path, name: str) -> None:
    """Run a trial of the study in folder `study` unless it is done; `source` is the folder that data is read from.

    A trial that an earlier process began and did not end is begun anew: its numbers follow from its seed. One that another
    process still works on is waited for.
    """
    folder = TrialFolder(study, name)
    with folder.locked():
        trial = folder.read()
        if trial.status in ("done", "failed"):
            return
        trial = trial.at("running", attempts=1)
        folder.write(trial)
        log, close = write_lines(folder.path / METRICS)
        try:
            spec = StudySpec.read(read_json(study / STUDY))
            contents = spec.data.gather(source)
            if fingerprint(contents.digests) != trial.data:
                raise SpecError(
                    Problem("data", "other contents of its files", f"those of {DATA}", "Put them back and --retry.")
                )
            examples = contents.open(load_spec(dict(trial.spec)))
            write_json(folder.path / RESULT, train(trial, examples, spec.latency, log))
        except (PairformError, DivergedError) as error:
            folder.write(trial.at("failed", str(error)))
        except Exception:
            folder.write(trial.at("failed", traceback.format_exc()))
        else:
            folder.write(trial.at("done"))
        finally:
            close()
