"""How long trials take to the loss that the first variant reaches, from their metrics."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.measures.specs import Measured, TimeToLoss
from pairform.experiments.results.metric_lines import read_metrics
from pairform.experiments.results.records import STUDY, TRIALS, Trial, first_variant, measurable
from pairform.registry import read_json
from pairform.training.metrics import METRICS

Results = dict[str, dict[int, dict[str, Any]]]
"""Results of trials that are done, by variant and seed."""
TRAINING = 3
"""FLOPs of forward and backward pass in those of the forward pass: the gradients of a product are two products."""
CLOCKS = ("step", "tokens", "seconds")


@dataclass(frozen=True)
class Times:
    """When the trials of a variant reach the final loss of the first variant with the same seed.

    label:  first part of the names of the results.
    seeds:  steps, tokens, FLOPs and seconds by seed; None for one that does not reach it.
    limits: steps of each trial that does not.
    """

    label: str
    seeds: Mapping[int, dict[str, float] | None]
    limits: tuple[int, ...] = ()

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
    def finding(self) -> str:
        """As a sentence without a subject."""
        count = f"{len(self.reached)} of {len(self.seeds)} seeds reach the final loss of the first variant with the same seed"
        words = [count if self.reached else f"none of {len(self.seeds)} seeds reaches{count.partition('reach')[2]}"]
        if self.median is not None:
            words.append(f"at a median of {self.median:,.0f} steps")
        if self.limits:
            words.append(f"not reached within {min(self.limits):,} steps by {len(self.limits)}")
        return "; ".join(words) + "."

    def document(self) -> dict[str, Any]:
        return {
            "reached": len(self.reached),
            "seeds": len(self.seeds),
            "median_steps": self.median,
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
        base = results.get(f"{first} {trials[0].point}".strip(), {})
        seeds: dict[int, dict[str, float] | None] = {}
        limits = []
        for trial in trials:
            wanted = base.get(trial.seed, {}).get("loss")
            if trial.seed in results[variant] and wanted is not None:
                lines, _ = read_metrics(study / TRIALS / trial.name / METRICS)
                seeds[trial.seed] = time_of(trial, lines, wanted)
                limits += [trial.training.steps] if seeds[trial.seed] is None else []
        if seeds:
            found[variant] = Times(labels[0], seeds, tuple(limits))
    return found


def time_of(trial: Trial, lines: Sequence[Mapping[str, Any]], loss: float) -> dict[str, float] | None:
    """Steps, tokens, FLOPs and seconds of training until a trial reaches a loss; None if it does not.

    FLOPs are those of forward and backward passes over batches at the longest lengths of the data.
    """
    reached = first_reached(lines, loss)
    if reached is None:
        return None
    steps, tokens, seconds = reached
    flops = TRAINING * trial.training.batch * trial.costs.get("flops", 0) * steps
    return {"steps": steps, "tokens": tokens, "flops": flops, "seconds": seconds}


def first_reached(lines: Sequence[Mapping[str, Any]], loss: float) -> tuple[float, float, float] | None:
    """Steps, tokens and seconds at which the validation loss is first at or below `loss`; None if it never is.

    Between the validation that is and the one before it, all are interpolated linearly in the loss. If the first validation is,
    they are its own: an upper bound.
    """
    before: list[float] | None = None
    for line in lines:
        if line.get("split") != "valid" or not all(measurable(line.get(name)) for name in ("loss", *CLOCKS)):
            continue
        now = [float(line[name]) for name in ("loss", *CLOCKS)]
        if now[0] <= loss:
            part = 1.0 if before is None else (before[0] - loss) / (before[0] - now[0])
            start = before or now
            steps, tokens, seconds = (one + part * (other - one) for one, other in zip(start[1:], now[1:], strict=True))
            return steps, tokens, seconds
        before = now
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
