"""Loss on sources that are longer than those of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.computing import longest_of, validate
from pairform.experiments.evaluation.specs import LengthExtrapolation
from pairform.registry import Problem, SpecError
from pairform.training.data.batches import Contents, Example, check_lengths
from pairform.training.data.objectives import PrefixLM
from pairform.training.data.synthetic_tasks import Lookup, Recall, SequenceTask
from pairform.training.data.texts import Texts
from pairform.training.settings import TrainingSpec


class LongerContents:
    """The study's data with longer sources, by factor."""

    def __init__(self, spec: LengthExtrapolation, folder: Path, where: str, contents: Contents) -> None:
        self.digests: Mapping[str, str] = {}
        self.contents = {factor: longer(contents, factor, spec.examples, where) for factor in spec.factors}
        for each in self.contents.values():
            if isinstance(each, SequenceTask | Recall | Lookup):
                each.gather(folder)  # checks its settings

    def open(self, spec: ModelSpec) -> "OpenedLengths":
        longer = {factor: contents.open(spec) for factor, contents in self.contents.items()}
        if problems := [problem for each in longer.values() for problem in check_lengths(each, batch=1)]:
            raise SpecError(problems)
        examples = {factor: each.validation() for factor, each in longer.items()}
        return OpenedLengths(examples, longest_of(spec, [one for each in examples.values() for one in each]))


def longer(contents: Contents, factor: int, examples: int | None, where: str) -> Contents:
    """The data with sources of `factor` times the length of the longest in training; for text, of the source's length.

    Raises:
        SpecError: the lengths of the data are those of its files.
    """
    number = {} if examples is None else {"validation": examples}
    changed: dict[str, Any]
    match contents:
        case SequenceTask():
            changed = {"length": (factor * contents.length[1], factor * contents.length[1])}
        case Recall():
            changed = {"pairs": factor * contents.pairs}
        case Lookup():
            changed = {"length": factor * contents.length}
        case Texts():
            objective = contents.spec.objective
            if not isinstance(objective, PrefixLM):
                changed = {"window": factor * objective.window}
            else:
                uniform = {"target": factor * objective.target} if objective.split == "uniform" else {}
                changed = {"source": factor * objective.source} | uniform
            longer_objective = objective.model_copy(update=changed)
            return contents.cut_as(contents.spec.model_copy(update={"objective": longer_objective} | number))
        case _:
            expected = "a synthetic task, or text, whose lengths are settings"
            raise SpecError(Problem(where, "length_extrapolation on pairs, whose lengths are those of their files", expected))
    return contents.model_copy(update=changed | number)


@dataclass(frozen=True)
class OpenedLengths:
    """examples: by factor."""

    examples: dict[int, list[Example]]
    lengths: tuple[int, int]

    def __call__(self, model: Model, settings: TrainingSpec) -> dict[str, float]:
        found: dict[str, float] = {}
        for factor, examples in self.examples.items():
            measured = validate(model, examples, settings, rows=max(1, settings.batch // factor))
            found |= {f"{name}_{factor}x": measured[name] for name in ("loss", "accuracy")}
        return found
