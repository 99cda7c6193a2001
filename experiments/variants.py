"""The variants of a study: the base and the settings with patches applied, at each point of the grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.specs import ModelSpec
from pairform.experiments.matching import patch_at
from pairform.experiments.records import Match
from pairform.experiments.study_spec import StudySpec, TrainingSpec
from pairform.registry import apply_patch, merge_patch, thaw


@dataclass(frozen=True)
class Variant:
    """A model of the study: its name with the grid's values, and what was applied to the base."""

    name: str
    patches: tuple[dict[str, Any], ...]
    spec: ModelSpec
    training: TrainingSpec
    match: Match | None = None


@dataclass(frozen=True)
class Combination:
    """A variant at a point of the grid, which is `shown` as text, with the patches that make it."""

    variant: str
    shown: str
    patches: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.variant} {self.shown}".strip()

    @property
    def where(self) -> str:
        """As errors name it."""
        return f"variants.{self.variant}" + (f" with {self.shown}" if self.shown else "")


def combination(study: StudySpec, name: str, point: Mapping[str, Any]) -> Combination:
    """A variant at a point of the grid."""
    short = short_names(list(study.grid))
    shown = " ".join(f"{short[path]}={value}" for path, value in point.items())
    patches = (thaw(study.variants[name]), *(patch_at(path, thaw(value)) for path, value in point.items()))
    return Combination(name, shown, patches)


def short_names(paths: list[str]) -> dict[str, str]:
    """The last word of each path, or all of it where two paths share that word."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: word if last.count(word) == 1 else path for path, word in zip(paths, last, strict=True)}


def make_variant(study: StudySpec, combination: Combination, folder: Path) -> Variant:
    """The base and the settings with the patches applied; a field that they do not have is an error."""
    assert not isinstance(study.base, str), "written out when the study was read"
    document: dict[str, Any] = thaw(study.base)
    training = study.training.document()
    for patch in combination.patches:
        training = merge_patch(training, patch.get("training", {}))
        document = apply_patch(document, {key: value for key, value in patch.items() if key != "training"}, folder)
    spec = ModelSpec.read(document)
    return Variant(combination.name, combination.patches, spec, TrainingSpec.read(training, where="training"))
