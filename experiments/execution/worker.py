"""The work of a trial's own process: train and measure its model, and record how it ended."""

import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.evaluation.gathering import measure
from pairform.experiments.execution.logs import trial_log
from pairform.experiments.execution.trial import train
from pairform.experiments.results.records import DATA, NEW, RESULT, STUDY, SourceFile, Trial, TrialFolder
from pairform.experiments.study.contents import gather
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.variants import model_patches
from pairform.experiments.study.weights import Initialisation, initialise
from pairform.registry import CheckpointError, PairformError, Problem, SpecError, read_json, thaw
from pairform.registry.run_folders import remove_partials, write_json
from pairform.training.checkpoints import resume_step
from pairform.training.data.batches import fingerprint
from pairform.training.optimization.spikes import DivergedError


@dataclass(frozen=True)
class Work:
    """What trials run on.

    study:       the study's folder.
    source:      folder to which the data's paths are relative.
    tensorboard: also log metrics for TensorBoard.
    wandb:       also log metrics to this project on Weights & Biases.
    """

    study: Path
    source: Path
    tensorboard: bool = False
    wandb: str | None = None


def run_trial(work: Work, name: str) -> None:
    """Run a trial unless it has ended already.

    A trial that an earlier process left unfinished resumes from its checkpoint, or starts again from the beginning if it has
    none: its numbers depend only on its seed. If another process is still running it, this waits.
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
            result = measured(work, trial, folder)
            write_json(folder.path / RESULT, result)
        except DivergedError as error:  # it would diverge again
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            folder.write(trial.at("failed", str(error)))
        except PairformError as error:
            folder.write(trial.at("failed", str(error)))
        except Exception:
            folder.write(trial.at("failed", traceback.format_exc()))
        else:
            folder.write(trial.at("done"))
            shutil.rmtree(folder.checkpoints, ignore_errors=True)


def measured(work: Work, trial: Trial, folder: TrialFolder) -> dict[str, Any]:
    """Train the model of a trial, from its last checkpoint on if there is one. Returns its results."""
    study = StudySpec.read(read_json(work.study / STUDY))
    contents = gather(study, work.source)
    if fingerprint(contents.digests) != trial.data:
        raise SpecError(
            Problem("data", "other contents of its files", f"those of {DATA}", "Restore the files, then run with --retry.")
        )
    spec = load_spec(dict(trial.spec))
    examples = contents.open(spec)
    initial = None if trial.weights == NEW else initialised(work, study, trial).build
    begin = resume_step(folder.checkpoints) or 0
    try:
        with trial_log(folder.path, trial, begin, work.tensorboard, work.wandb) as log:
            options: dict[str, Any] = {"checkpoints": folder.checkpoints, "begin": begin, "counted": trial.costs or None}
            swept = trial.stage == "sweep"  # only its loss is read
            options["measure"] = measure(() if swept else contents.measures, spec, trial.training)
            result = train(trial, examples, study.latency and not swept, log, initial=initial, **options)
    except CheckpointError:  # a damaged checkpoint is not resumed from again
        if begin:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        raise
    return result if trial.carried is None else result | {"carried_parameters": trial.carried.parameters}


def initialised(work: Work, study: StudySpec, trial: Trial) -> Initialisation:
    """The model of a trial with weights from checkpoints, which must be as they were when it was planned."""
    assert not isinstance(study.base, str), "expanded when the study was read"
    made = initialise(study.base, trial.weights, model_patches(trial.patches), work.source, trial.seed)
    now = {name: SourceFile.of(name, path, trial.sources).sha256 for name, path in made.files.items()}
    if now != trial.digests or made.spec.document() != thaw(trial.spec):
        remedy = "Restore the files, then run with --retry."
        raise SpecError(Problem("weights", "other contents of the source's files", "those of the trial's record", remedy))
    return made
