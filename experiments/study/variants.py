"""The variants of a study: the base and the settings with patches applied, at each point of the grid."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.matched_size import Match
from pairform.experiments.results.records import NEW, Carried, Weights
from pairform.experiments.study.factors import Levels
from pairform.experiments.study.ladder import SCALE
from pairform.experiments.study.spec import StudySpec
from pairform.experiments.study.values import misplaced
from pairform.experiments.study.weights import initialise
from pairform.registry import Problem, SpecError, merge_patch, patch_at, shorten, suggest, thaw
from pairform.registry.merge import fields_of
from pairform.training.settings import TrainingSpec, check_ignored

PLAIN = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*")
NOT_PLAIN = re.compile(r"[^A-Za-z0-9._=-]+")
SETTINGS = ("training", "weights")
"""Keys of a patch that refer to the study, not to the model."""
SHORT = 4
"""Characters of a name that is too short to resemble another one by more than chance."""
LONGEST = 100
"""Characters of a variant's name in the name of a trial's folder."""


@dataclass(frozen=True)
class Combination:
    """A variant at a point of the grid, written as `depth=2` and so on, with its patches, and the levels of its factors.

    setting:         the tuned values, written like the point.
    hyperparameters: the tuned values by path.
    rung: the name of its size on the study's ladder, which the point begins with; empty without a ladder.
    """

    variant: str
    point: tuple[str, ...]
    patches: tuple[dict[str, Any], ...]
    levels: Levels
    setting: tuple[str, ...]
    hyperparameters: Mapping[str, Any]
    rung: str

    @property
    def shown(self) -> str:
        """The point as one text."""
        return " ".join(self.point)

    @property
    def name(self) -> str:
        return f"{self.variant} {self.shown}".strip()

    @property
    def full_name(self) -> str:
        """Its name with the tuned values."""
        return " ".join([self.name, *self.setting])

    @property
    def folder(self) -> str:
        """Folder name. It depends on this name alone, so that other variants can be added or removed."""
        parts = (*(self.variant.split(" ") if self.levels else [self.variant]), *self.point, *self.setting)
        joined = "-".join(parts)
        if all(PLAIN.fullmatch(part) for part in parts) and len(joined) <= LONGEST:
            return joined
        digest = hashlib.sha256(self.full_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return "-".join([word for word in (NOT_PLAIN.sub("-", joined)[:LONGEST].strip("-."), digest) if word])

    @property
    def where(self) -> str:
        """Its name in errors."""
        values = " ".join([*self.point, *self.setting])
        kind = "combination" if self.levels else "variant"
        return f"{kind} {shorten(self.variant)}" + (f" with {values}" if values else "")


@dataclass(frozen=True)
class Variant(Combination):
    """A combination as a model to train, with its patches applied to the base.

    weights: where they come from.
    carried: how much of them comes from there; None: they are new.
    files:   the weight files of the source by name.
    also:    other variants of the study that are the same.
    remarks: what is probably not meant, as sentences about it.
    costs:   of its model at the longest lengths of the data.
    """

    spec: ModelSpec
    training: TrainingSpec
    weights: Weights = NEW
    carried: Carried | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    match: Match | None = None
    also: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    costs: Mapping[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What its results depend on besides data and seed, as JSON: the model, its training and its weights."""
        parts = {"spec": self.spec.document(), "training": self.training.document(), "weights": thaw(self.weights)}
        return json.dumps(parts, sort_keys=True)


def combination(
    study: StudySpec,
    name: str,
    point: Mapping[str, Any],
    rung: str = "",
    hyperparameters: Mapping[str, Any] = MappingProxyType({}),
) -> Combination:
    """A variant at a size of the ladder and a point of the grid, with some tuned values. It is scaled, then gets the values."""
    short = short_names([*study.grid, *study.tune])
    shown, setting = (tuple(f"{short[path]}={value}" for path, value in values.items()) for values in (point, hyperparameters))
    arm = study.arms[name]
    sizes = (thaw(study.ladder[rung]),) if rung else ()
    values = [patch_at(path, thaw(value)) for path, value in (*point.items(), *hyperparameters.items())]
    place = (*((f"rung={rung}",) if rung else ()), *shown)
    return Combination(name, place, (*map(thaw, arm.patches), *sizes, *values), arm.levels, setting, hyperparameters, rung)


def short_names(paths: list[str]) -> dict[str, str]:
    """The last field of each path, or the whole path if two share that field."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: word if last.count(word) == 1 else path for path, word in zip(paths, last, strict=True)}


def make_variant(study: StudySpec, combination: Combination, folder: Path) -> Variant:
    """The base and the settings with the patches applied; `SpecError` for an unknown field."""
    assert not isinstance(study.base, str), "expanded when the study was read"
    settings: dict[str, Any] = {
        "training": study.training.document(),
        "weights": thaw(NEW if study.weights is None else study.weights),
    }
    for patch in combination.patches:
        settings = merge_patch(settings, {name: patch[name] for name in SETTINGS if name in patch}, StudySpec)
    weights = settings.get("weights")
    if not isinstance(weights, str | Mapping):
        found, remedy = ("null", f'Write "{NEW}" for new weights.') if weights is None else (shorten(weights), "")
        raise SpecError(Problem("weights", found, f"{NEW}, a folder, a hub id, or {{convert: ...}}", remedy))
    training = TrainingSpec.read(settings.get("training"), where="training")
    check_ignored(training, *combination.patches)
    made = initialise(study.base, weights, model_patches(combination.patches), folder)
    return Variant(
        combination.variant,
        combination.point,
        combination.patches,
        combination.levels,
        combination.setting,
        combination.hyperparameters,
        combination.rung,
        made.spec,
        training,
        weights,
        made.carried,
        made.files,
    )


def model_patches(patches: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What patches change in the model."""
    found = [{name: value for name, value in patch.items() if name not in SETTINGS} for patch in patches]
    wrong = [(name, belongs) for patch in found for name in patch if (belongs := misplaced(name))]
    if wrong:
        raise SpecError(Problem(name, "a setting of `training` in a patch on the model", belongs) for name, belongs in wrong)
    known = sorted({SCALE, *SETTINGS, *fields_of(ModelSpec)})
    unknown = {name: value for patch in found for name, value in patch.items() if value is not None and name not in known}
    if unknown:
        settings = "`training` says how a variant is trained, `weights` where its weights come from."
        raise SpecError(
            Problem(
                name,
                f"an unknown field with value {shorten(value)}",
                f"one of {', '.join(known)}",
                f"{suggest(name, known) if len(name) > SHORT else ''} {settings}".strip(),
            )
            for name, value in unknown.items()
        )
    return found
