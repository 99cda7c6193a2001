"""What a study would take, and what it could show, before it runs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.execution.trial import update
from pairform.experiments.execution.worker import Work, initialised
from pairform.experiments.results.noise import Noise, noise_of
from pairform.experiments.results.records import NEW, STUDY, Trial
from pairform.experiments.statistics.factorial import alias_groups
from pairform.experiments.statistics.scaling import Law, Observation, law_of
from pairform.experiments.study.factors import FractionalDesign
from pairform.experiments.study.planning import plan_trials, room
from pairform.experiments.study.seeds import all_seeds
from pairform.experiments.study.spec import StudySpec
from pairform.registry import InputError, Problem
from pairform.training.data.batches import Contents
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.step import deterministic


@dataclass(frozen=True)
class VariantForecast:
    """One variant of a study.

    trials:       one for each seed.
    parameters:   shared ones counted once.
    flops:        of a forward pass over the longest source and target.
    law:          N, D and C of its point on a ladder, by name, as in its results; D of the longest examples. Else empty.
    step_seconds: of one step of training, timed; None if it was not.
    """

    name: str
    trials: int
    parameters: int
    flops: int
    steps: int
    step_seconds: float | None
    law: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Of training all its trials one after another, without validation."""
        return None if self.step_seconds is None else self.trials * self.steps * self.step_seconds


@dataclass(frozen=True)
class Forecast:
    """A study before it runs.

    bytes:       upper bound of the size of its folder, while one trial runs.
    comparisons: variants that are compared with the first, over all points of the grid.
    noise:       of its losses, if its folder has enough trials; else None.
    """

    study: StudySpec
    variants: list[VariantForecast]
    bytes: int
    comparisons: int
    noise: Noise | None

    @property
    def trials(self) -> int:
        return sum(variant.trials for variant in self.variants)

    @property
    def seconds(self) -> float | None:
        """Of training all trials one after another."""
        known = [variant.seconds for variant in self.variants if variant.seconds is not None]
        return sum(known) if len(known) == len(self.variants) else None

    @property
    def seeds(self) -> int:
        """Number of seeds; the largest, if it depends on the differences."""
        return len(all_seeds(self.study.seeds))

    @property
    def aliases(self) -> list[list[str]]:
        """Factors and interactions that a fractional design cannot tell apart."""
        design = self.study.design
        return alias_groups(list(self.study.factors), design.resolution) if isinstance(design, FractionalDesign) else []

    @property
    def law(self) -> Law | None:
        """The scaling law that the sizes of the first variant identify; None if they identify none, or there is one size."""
        own = self.variants[: len(self.variants) // len(self.study.arms)]
        points = [Observation(each.name, 0, *map(float, each.law.values()), 1.0) for each in own if each.law]
        return law_of(points) if points else None

    @property
    def detectable(self) -> float | None:
        """The smallest difference that the study's seeds show; None if that is not known."""
        return None if self.noise is None else self.noise.detectable(self.seeds, self.comparisons, self.study.comparison)

    def seeds_needed(self, difference: float) -> int | None:
        """The number of seeds that show `difference`; None for more than 10,000, or if the noise is not known."""
        return None if self.noise is None else self.noise.seeds_needed(difference, self.comparisons, self.study.comparison)


def forecast(study: StudySpec, source: Path, out: Path | None = None, timed: bool = True) -> Forecast:
    """Plan a study without running it.

    Args:
        study: The study, as `read_study` returns it.
        source: Folder to which the data's paths are relative.
        out: Folder of the study, whose finished trials tell how much its losses vary between seeds.
        timed: Build the model of each variant and time a step of its training.

    Raises:
        PairformError: the study cannot be run.
    """
    if study.search is not None:
        raise InputError(
            Problem("search", "a search", "a study without one", "Remove `search`; its points are chosen as it runs.")
        )
    contents = study.data.gather(source)
    planned = plan_trials(study, source, contents)
    by_variant: dict[str, list[Trial]] = {}
    for trial in planned:
        by_variant.setdefault(trial.variant, []).append(trial)
    work = Work(out or source, source.absolute())
    variants = [
        VariantForecast(
            name,
            len(trials),
            trials[0].costs["parameters"],
            trials[0].costs["flops"],
            trials[0].training.steps,
            step_seconds(work, study, trials[0], contents) if timed else None,
            law_sizes(trials[0], contents) if trials[0].rung else {},
        )
        for name, trials in by_variant.items()
    ]
    known = noise_of(out) if out is not None and (out / STUDY).is_file() else None
    comparisons = len(variants) - len(variants) // len(study.arms)
    return Forecast(study, variants, room(planned, 1), comparisons, known)


def law_sizes(trial: Trial, contents: Contents) -> dict[str, int]:
    """N, D and C of a trial, as if all its examples had the longest lengths."""
    settings = trial.training
    longest = sum(contents.open(load_spec(dict(trial.spec))).lengths)
    return {
        "non_embedding_parameters": trial.costs["non_embedding_parameters"],
        "training_tokens": settings.steps * settings.batch * longest,
        "training_flops": trial.costs["training_flops"],
    }


@deterministic()
def step_seconds(work: Work, study: StudySpec, trial: Trial, contents: Contents) -> float:
    """Seconds of a trial's second step: the first one also allocates memory. Layers are not compiled."""
    settings = trial.training
    torch.set_num_threads(settings.threads)
    if trial.weights == NEW:
        model = build(dict(trial.spec), device=settings.device, seed=trial.seed)
    else:
        model = initialised(work, study, trial).build(settings.device)
    examples = contents.open(load_spec(dict(trial.spec)))
    optimizer = make_optimizer(model.train(), settings.optimizer, fused=True)
    for step in range(2):
        start = time.perf_counter()
        loss, _ = update(model, examples.train(trial.seed, step, settings.batch), optimizer, settings)
        loss.item()  # waits for the device
    return time.perf_counter() - start
