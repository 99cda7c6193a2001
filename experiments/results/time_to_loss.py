"""How long trials take to the loss that the first variant reaches, from their metrics."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.evaluation.specs import Measured, TimeToLoss
from pairform.experiments.results.metric_lines import read_metrics
from pairform.experiments.results.records import STUDY, TRIALS, Trial, first_variant, measurable
from pairform.experiments.statistics.intervals import CONFIDENCE, interval
from pairform.registry import read_json
from pairform.training.metrics import METRICS

Results = dict[str, dict[int, dict[str, Any]]]
"""Results of trials that are done, by variant and seed."""
TRAINING = 3
"""FLOPs of forward and backward pass in those of the forward pass: the gradients of a product are two products."""
LOGGED = ("step", "tokens", "seconds")
CLOCKS = ("steps", "tokens", "flops", "seconds")


@dataclass(frozen=True)
class Ratio:
    """The geometric mean of ratios that are paired by seed, and its 95 % confidence interval; None for fewer than three."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> "Ratio":
        mean, half = interval([math.log(own / other) for own, other in pairs])
        return cls(math.exp(mean), *((None, None) if half is None else (math.exp(mean - half), math.exp(mean + half))))

    def __str__(self) -> str:
        within = (
            "" if self.low is None or self.high is None else f" ({CONFIDENCE:.0%} interval {self.low:.2f} to {self.high:.2f})"
        )
        return f"{self.mean:.2f}{within}"


@dataclass(frozen=True)
class Times:
    """When the trials of a variant reach the final loss of the first variant with the same seed.

    label:  first part of the names of the results.
    seeds:  steps, tokens, FLOPs and seconds by seed; None for one that does not reach it.
    limits: steps of each trial that does not.
    early:  number of seeds that reach it by their first validation, of which the times are upper bounds.
    first:  the times of the first variant; None for itself.
    """

    label: str
    seeds: Mapping[int, dict[str, float] | None]
    limits: tuple[int, ...] = ()
    early: int = 0
    first: Mapping[int, dict[str, float] | None] | None = None

    @property
    def reached(self) -> list[dict[str, float]]:
        return [found for found in self.seeds.values() if found is not None]

    @property
    def complete(self) -> bool:
        """Whether every seed reaches it. Otherwise times have no mean: those that are not known are longer than the others."""
        return len(self.reached) == len(self.seeds)

    @property
    def median(self) -> float | None:
        """The median of the steps, for which it is enough to know that the others take longer; None if half of them do."""
        ordered = sorted([found["steps"] for found in self.reached]) + [float("inf")] * len(self.limits)
        middle = statistics.median(ordered) if ordered else float("inf")
        return middle if middle < float("inf") else None

    @property
    def ratios(self) -> dict[str, Ratio]:
        """The times in those of the first variant; empty unless every seed of both reaches the loss."""
        if self.first is None or not self.complete:
            return {}
        pairs = [(own, other) for seed, own in self.seeds.items() if own and (other := self.first.get(seed))]
        if len(pairs) < len(self.seeds):
            return {}
        return {
            name: Ratio.of([(own[name], other[name]) for own, other in pairs])
            for name in CLOCKS
            if all(one[name] > 0 for pair in pairs for one in pair)
        }

    def caution(self, measure: str) -> str:
        """About a difference in a measure, if it is one of these times and some are upper bounds: a sentence after others."""
        if not self.early or not measure.startswith(f"{self.label}."):
            return ""
        return f" The times of {self.early} of {len(self.seeds)} seeds are upper bounds: evaluate more often."

    @property
    def finding(self) -> str:
        """As a sentence without a subject."""
        count = f"{len(self.reached)} of {len(self.seeds)} seeds"
        words = [f"reaches the first variant's final loss with {count}"]
        if self.median is not None:
            words.append(f"median {self.median:,.0f} steps")
        if (tokens := self.ratios.get("tokens")) is not None:
            words.append(f"{tokens} of the first variant's tokens")
        if self.early:
            words.append(f"an upper bound for {self.early}, which had reached it by the first validation")
        if self.limits:
            words.append(f"{len(self.limits)} had not reached it after {min(self.limits):,} steps")
        return "; ".join(words) + "."

    def document(self) -> dict[str, Any]:
        return {
            "reached": len(self.reached),
            "seeds": len(self.seeds),
            "median_steps": self.median,
            "early": self.early,
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "finding": self.finding,
        }


def times_to_loss(study: Path, groups: Mapping[str, list[Trial]], results: Results) -> dict[str, Times]:
    """The times of each variant with a trial that is done; empty for a study that does not measure them.

    Args:
        study: The study's folder.
        groups: Its trials by variant.
        results: Those of trials that are done.
    """
    document = read_json(study / STUDY)
    measured = Measured.read({"measures": document.get("measures", [])}, where=str(study / STUDY))
    labels = [measure.prefix for measure in measured.measures if isinstance(measure, TimeToLoss)]
    if not labels:
        return {}
    first = first_variant(study)
    found: dict[str, Times] = {}
    for variant, trials in groups.items():
        base = f"{first} {trials[0].point}".strip()
        seeds: dict[int, dict[str, float] | None] = {}
        limits, early = [], 0
        for trial in trials:
            wanted = results.get(base, {}).get(trial.seed, {}).get("loss")
            if trial.seed in results[variant] and wanted is not None:
                lines, _ = read_metrics(study / TRIALS / trial.name / METRICS)
                reached = first_reached(lines, wanted)
                seeds[trial.seed] = None if reached is None else reached.times(trial)
                limits += [trial.training.steps] if reached is None else []
                early += reached is not None and reached.early
        if seeds:
            known = found[base].seeds if base in found and base != variant else None
            found[variant] = Times(labels[0], seeds, tuple(limits), early, known)
    return found


@dataclass(frozen=True)
class Reached:
    """When a loss is reached. early: by the first validation, so that the others are upper bounds."""

    steps: float
    tokens: float
    seconds: float
    early: bool = False

    def times(self, trial: Trial) -> dict[str, float]:
        """Steps, tokens, FLOPs and seconds. FLOPs are those of forward and backward passes at the data's longest lengths."""
        flops = TRAINING * trial.training.batch * trial.costs.get("flops", 0) * self.steps
        return {"steps": self.steps, "tokens": self.tokens, "flops": flops, "seconds": self.seconds}


def first_reached(lines: Sequence[Mapping[str, Any]], loss: float) -> Reached | None:
    """When the validation loss is first at or below `loss`; None if it never is.

    Between the validation that is and the one before it, all are interpolated linearly in the loss. If the first validation is,
    they are its own.
    """
    before: list[float] | None = None
    for line in lines:
        if line.get("split") != "valid" or not all(measurable(line.get(name)) for name in ("loss", *LOGGED)):
            continue
        now = [float(line[name]) for name in ("loss", *LOGGED)]
        if now[0] > loss:
            before = now
        elif before is None:
            _, steps, tokens, seconds = now
            return Reached(steps, tokens, seconds, early=True)
        else:
            part = (before[0] - loss) / (before[0] - now[0])
            _, steps, tokens, seconds = (one + part * (other - one) for one, other in zip(before, now, strict=True))
            return Reached(steps, tokens, seconds)
    return None


def with_times(results: Results, times: Mapping[str, Times]) -> Results:
    """The results with the times of the variants of which every seed reaches the loss."""
    return {
        variant: {
            seed: result | (named(times[variant], seed) if variant in times and times[variant].complete else {})
            for seed, result in own.items()
        }
        for variant, own in results.items()
    }


def named(times: Times, seed: int) -> dict[str, float]:
    """The times of a seed by the names of results; empty if it does not reach the loss, or this is not known."""
    return {f"{times.label}.{name}": value for name, value in (times.seeds.get(seed) or {}).items()}
