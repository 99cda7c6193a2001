"""The sweep of a study that tunes its variants: the setting that each did best with, and the comparisons that follow.

The sweep's trials only choose. Each variant is then retrained on the study's seeds, which the sweep did not have: at its own
best setting (`tuned`), and at that of the variant that it is compared with (`same_recipe`).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from pairform.experiments.results.records import STUDY, Status, Trial, baselines, result_of, trials_of
from pairform.experiments.statistics.selection import Edge, close_calls, edge, lowest
from pairform.registry import read_json, thaw

Recipe = Literal["tuned", "same_recipe"]
RECIPES: tuple[Recipe, ...] = ("tuned", "same_recipe")
Place = tuple[int, ...]
"""A setting: the index of each value in its list in the study."""
NAMED = 3
"""Settings that are named; of more, their number."""


@dataclass(frozen=True)
class Setting:
    """One value of each tuned path, in the sweep of one variant.

    name:   as in `learning_rate=0.001`.
    losses: by seed, of trials that have ended; None if the trial failed.
    """

    name: str
    hyperparameters: Mapping[str, Any]
    losses: dict[int, float | None]


@dataclass(frozen=True)
class Sweep:
    """The sweep of one variant.

    trials:   their number by status.
    settings: in the study's order.
    complete: whether all trials have ended.
    best:     index of the best setting; None while the sweep is not complete, or if every trial failed.
    edges:    tuned paths whose best value is the smallest or largest that was tried, so that a better one may lie outside.
    close:    indices of settings that were not clearly worse than the best; None if one seed cannot tell.
    """

    variant: str
    point: str
    trials: Mapping[Status, int]
    settings: list[Setting]
    places: list[Place]
    complete: bool
    best: int | None
    edges: Mapping[str, Edge]
    close: list[int] | None = None

    @property
    def losses(self) -> list[list[float | None]]:
        """By setting and seed."""
        return [list(setting.losses.values()) for setting in self.settings]

    @property
    def chosen(self) -> Setting | None:
        return None if self.best is None else self.settings[self.best]

    @property
    def uncertain(self) -> bool:
        """Whether noise may have put another setting second."""
        return self.best is not None and self.close != []

    @property
    def remarks(self) -> list[str]:
        """What to know about the choice, as sentences."""
        if self.chosen is None:
            return ["every trial of its sweep failed, so that it was not retrained."] if self.complete else []
        values = self.chosen.hyperparameters
        found = [
            f"the best {path}, {json.dumps(values[path])}, is the {which} that was tried; a better one may lie outside."
            for path, which in self.edges.items()
        ]
        if self.close is None:
            found.append("one seed in its sweep cannot tell how certain the choice is.")
        elif self.close:
            names = [self.settings[index].name for index in self.close]
            shown = ", ".join(names) if len(names) <= NAMED else f"{len(names)} settings"
            found.append(f"the sweep does not distinguish {self.chosen.name} from {shown}; more seeds in the sweep could.")
        return found


def tuned_values(study: Path) -> dict[str, list[Any]]:
    """The values of each path that the study tunes; empty if it tunes none."""
    tune = read_json(study / STUDY).get("tune")
    return {path: values for path, values in tune.items() if isinstance(values, list)} if isinstance(tune, dict) else {}


def read_sweeps(study: Path) -> dict[str, Sweep]:
    """The sweep of each variant; empty for a study that tunes nothing."""
    return sweeps_of(study, trials_of(study)) if tuned_values(study) else {}


def sweeps_of(study: Path, trials: Iterable[Trial]) -> dict[str, Sweep]:
    """The sweep of each variant, among the study's trials; empty for a study that tunes nothing."""
    values = tuned_values(study)
    if not values:
        return {}
    seeds = read_json(study / STUDY).get("tune_seeds")
    wanted = prod(map(len, values.values())) * (len(seeds) if isinstance(seeds, list) else 0)
    groups: dict[str, dict[Place, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.stage == "sweep" and (place := place_of(values, trial)) is not None:
            groups[trial.variant][place].append(trial)
    sweeps = {variant: sweep_of(study, values, by_place, wanted) for variant, by_place in groups.items()}
    ended = [sweep for sweep in sweeps.values() if sweep.complete]
    if (close := close_calls([sweep.losses for sweep in ended])) is None:
        return sweeps
    return sweeps | {sweep.variant: replace(sweep, close=own) for sweep, own in zip(ended, close, strict=True)}


def place_of(values: Mapping[str, Sequence[Any]], trial: Trial) -> Place | None:
    """Where the trial's setting is among the study's values; None if it is not."""
    found = []
    for path, listed in values.items():
        own = json.dumps(thaw(trial.hyperparameters.get(path)), sort_keys=True)
        found.append(next((index for index, value in enumerate(listed) if json.dumps(value, sort_keys=True) == own), None))
    return tuple(index for index in found if index is not None) if None not in found else None


def sweep_of(study: Path, values: Mapping[str, Sequence[Any]], by_place: Mapping[Place, list[Trial]], wanted: int) -> Sweep:
    """The sweep of one variant. wanted: number of its trials, once all are planned."""
    places = sorted(by_place)
    settings = [
        Setting(
            own[0].setting,
            thaw(own[0].hyperparameters),
            {
                trial.seed: result_of(study, trial.name).get("loss") if trial.status == "done" else None
                for trial in own
                if trial.status in ("done", "failed")
            },
        )
        for own in map(by_place.__getitem__, places)
    ]
    first = by_place[places[0]][0]
    complete = sum(len(setting.losses) for setting in settings) == wanted
    states = Counter(trial.status for own in by_place.values() for trial in own)
    sweep = Sweep(first.variant, first.point, dict(states), settings, places, complete, None, {})
    if not complete or (best := lowest(sweep.losses)) is None:
        return sweep
    chosen = {path: listed[index] for (path, listed), index in zip(values.items(), places[best], strict=True)}
    edges = {path: which for path, listed in values.items() if (which := edge(listed, chosen[path])) is not None}
    return replace(sweep, best=best, edges=edges)


def recipes_of(study: Path, sweeps: Mapping[str, Sweep], first: str | None, trials: Iterable[Trial]) -> dict[str, set[Recipe]]:
    """The comparisons that each retrained trial belongs to, by its name; none if a later choice left it aside.

    first: the variant that the others are compared with.
    """
    values = tuned_values(study)
    best = {variant: sweep.places[sweep.best] for variant, sweep in sweeps.items() if sweep.best is not None}
    against = baselines({variant: sweep.point for variant, sweep in sweeps.items()}, first)
    wanted: dict[Recipe, dict[str, Place | None]] = {
        "tuned": dict(best),
        "same_recipe": {variant: best.get(against[variant]) for variant in best},
    }
    return {
        trial.name: {recipe for recipe in RECIPES if wanted[recipe].get(trial.variant) == place}
        for trial in trials
        if trial.stage == "retrain" and (place := place_of(values, trial)) is not None
    }


def uncertainty(sweeps: Mapping[str, Sweep], first: str | None, variant: str) -> str:
    """What a difference between tuned variants may be instead; empty if the sweep settled both of their settings."""
    own = sweeps[variant]
    (other,) = baselines({variant: own.point}, first).values()
    others = other in sweeps and sweeps[other].uncertain
    if not own.uncertain and not others:
        return ""
    alone = "Its best setting is" if own.uncertain else f"The best setting of {other} is"
    whose = "Both best settings are" if own.uncertain and others else alone
    return f" {whose} uncertain, so the difference may be one of settings."
