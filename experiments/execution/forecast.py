"""What a study would take, and what it could show, before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.results.matched_size import Match
from pairform.experiments.results.noise import Noise, noise_of
from pairform.experiments.results.records import STUDY, Trial
from pairform.experiments.statistics.effects import effect_deviations
from pairform.experiments.statistics.factorial import alias_groups
from pairform.experiments.statistics.scaling import Law, Observation, law_of
from pairform.experiments.study.contents import StudyContents, gather
from pairform.experiments.study.disk import room
from pairform.experiments.study.factors import FractionalDesign
from pairform.experiments.study.planning import plan_trials
from pairform.experiments.study.seeds import all_seeds
from pairform.experiments.study.size_matching import known_matches
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.steps import step_seconds
from pairform.experiments.study.tuning import most_trials
from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class VariantForecast:
    """One variant of a study.

    trials:       one for each seed; if variants are tuned, those of the sweep, and at most two for each seed.
    parameters:   shared ones counted once.
    flops:        of a forward pass over the longest source and target.
    step_seconds: of one step of training, timed; None if it was not. Of tuned values, those of the costliest model and batch.
    steps:        of one trial; all_steps: of all.
    law:          N, D and C of its point on a ladder, by name, as in its results; D of the longest examples. Else empty.
    carried_parameters: of the checkpoints that it starts from; None: all weights are new.
    also:         other variants that are the same, and have no trials.
    remarks:      what is probably not meant in it, as sentences about it.
    match:        its size against the first variant's, in a study that scales variants.
    """

    name: str
    trials: int
    parameters: int
    flops: int
    steps: int
    step_seconds: float | None
    all_steps: int
    law: Mapping[str, int] = field(default_factory=dict)
    carried_parameters: int | None = None
    also: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    match: Match | None = None

    @property
    def seconds(self) -> float | None:
        """Of training all its trials one after another, without validation."""
        return None if self.step_seconds is None else self.all_steps * self.step_seconds


@dataclass(frozen=True)
class Forecast:
    """A study before it runs.

    bytes:       upper bound of the size of its folder, while one trial runs.
    comparisons: variants that are compared with the first, over all points of the grid.
    swept:       number of trials that only choose tuned values.
    noise:       of its losses, if its folder has enough trials; else None.
    """

    study: StudySpec
    variants: list[VariantForecast]
    bytes: int
    comparisons: int
    swept: int
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
        start = f"{self.study.first} rung="
        own = [(each.name, each.law) for each in self.variants if each.law and each.name.startswith(start)]
        points = [
            Observation(name, 0, law["non_embedding_parameters"], law["training_tokens"], law["training_flops"], 1.0)
            for name, law in own
        ]
        return law_of(points) if points else None

    @property
    def detectable(self) -> float | None:
        """The smallest difference that the study's seeds show; None if that is not known."""
        return None if self.noise is None else self.noise.detectable(self.seeds, self.comparisons, self.study.comparison)

    @property
    def detectable_effects(self) -> dict[str, float]:
        """By factor, the smallest difference between the means of its first and another level that the study's seeds show.

        Empty if the noise is not known, for fewer than three seeds, and if the combinations cannot tell the factors apart.
        """
        if self.noise is None:
            return {}
        study, cells = self.study, [arm.levels for arm in self.study.arms.values()]
        ratios = effect_deviations({factor: list(levels) for factor, levels in study.factors.items()}, cells)
        count = sum(len(levels) - 1 for levels in study.factors.values())
        found = {
            factor: replace(self.noise, deviation=ratio * self.noise.deviation).detectable(self.seeds, count, study.comparison)
            for factor, ratio in ratios.items()
        }
        return {factor: difference for factor, difference in found.items() if difference is not None}

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
    contents = gather(study, source)
    every = plan_trials(study, source, contents, {} if out is None else known_matches(out, study))
    planned = most_trials(every, study.first)
    by_variant: dict[str, list[Trial]] = {}
    for trial in planned:
        by_variant.setdefault(trial.variant, []).append(trial)
    variants = []
    for name, trials in by_variant.items():
        one = max(trials, key=lambda trial: trial.costs["flops"] * trial.training.batch)
        variants.append(
            VariantForecast(
                name,
                len(trials),
                one.costs["parameters"],
                one.costs["flops"],
                one.training.steps,
                timed_step(one, contents) if timed else None,
                sum(trial.training.steps for trial in trials),
                law_sizes(one, contents) if one.rung else {},
                None if one.carried is None else one.carried.parameters,
                one.also,
                tuple(dict.fromkeys(remark for trial in trials for remark in trial.remarks)),
                one.match,
            )
        )
    known = noise_of(out) if out is not None and (out / STUDY).is_file() else None
    comparisons = len(variants) - len({trial.variant for trial in planned if study.first in trial.variants})
    swept = sum(trial.stage == "sweep" for trial in planned)
    return Forecast(study, variants, room(planned, 1), comparisons, swept, known)


def law_sizes(trial: Trial, contents: StudyContents) -> dict[str, int]:
    """N, D and C of a trial, as if all its examples had the longest lengths."""
    settings = trial.training
    longest = sum(contents.open(load_spec(dict(trial.spec))).lengths)
    return {
        "non_embedding_parameters": trial.costs["non_embedding_parameters"],
        "training_tokens": settings.steps * settings.batch * longest,
        "training_flops": trial.costs["training_flops"],
    }


def timed_step(trial: Trial, contents: StudyContents) -> float:
    """Seconds of a step of a trial's training."""
    spec = load_spec(dict(trial.spec))
    return step_seconds(spec, trial.training, contents.open(spec), trial.seed)
