"""The measures of a study with the contents of their files, and what they measure on a trained model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.choices import QuestionFile
from pairform.experiments.evaluation.computing import Gathered, finite
from pairform.experiments.evaluation.generation import GenerationFile
from pairform.experiments.evaluation.length_extrapolation import LongerContents
from pairform.experiments.evaluation.linear_probe import ProbeFiles
from pairform.experiments.evaluation.specs import Choices, Generation, LengthExtrapolation, LinearProbe, Measure
from pairform.registry import PairformError, Problem, SpecError
from pairform.training.costs.trials import costs
from pairform.training.data.batches import MOST_TOKENS, Contents
from pairform.training.settings import TrainingSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Placed:
    """A measure of a study. where: its place in the study's file."""

    where: str
    spec: Measure
    gathered: Gathered


def gather_measures(measures: Sequence[Measure], folder: Path, contents: Contents) -> list[Placed]:
    """Those that are measured on trained models, with the contents of their files.

    Args:
        measures: The study's.
        folder: Folder to which the files are relative.
        contents: The study's data.

    Raises:
        SpecError: a file is missing, empty or wrong; with its name and line.
    """
    found: list[Placed] = []
    for index, spec in enumerate(measures):
        if spec.trained:
            where = f"measures[{index}]"
            try:
                found.append(Placed(where, spec, gathered(spec, folder, where, contents)))
            except SpecError as error:
                raise SpecError(list(placed(where, error))) from None
    return found


def gathered(spec: Measure, folder: Path, where: str, contents: Contents) -> Gathered:
    match spec:
        case Choices():
            return QuestionFile(spec, folder, where, contents)
        case LinearProbe():
            return ProbeFiles(spec, folder, where, contents)
        case Generation():
            return GenerationFile(spec, folder, where, contents)
        case LengthExtrapolation():
            return LongerContents(spec, folder, where, contents)
    raise AssertionError(f"no measure {type(spec).__name__}")


def check(measures: Sequence[Placed], spec: ModelSpec, training: TrainingSpec) -> Iterator[Problem]:
    """Why a model cannot be measured: its tokens, its positions, or the memory that the longest examples take."""
    for each in measures:
        try:
            lengths = each.gathered.open(spec).lengths
            count = max(1, training.batch // max(getattr(each.spec, "factors", (1,))))
            if count * sum(lengths) > MOST_TOKENS:
                found = f"{count:,} examples of up to {lengths[0]:,} + {lengths[1]:,} tokens"
                raise SpecError(Problem("", found, f"shorter ones, or a smaller batch: {MOST_TOKENS:,} tokens"))
            costs(spec, lengths, training.dtype)
        except PairformError as error:
            yield from placed(each.where, error)
        except Exception as error:  # whatever a block raises for lengths that it does not support
            yield Problem(each.where, f"{type(error).__name__}: {error}", "a model that takes the longest examples")


def placed(where: str, error: PairformError) -> Iterator[Problem]:
    """An error's problems with the measure's place in the study, unless they have it, or name the line of a file."""
    for problem in error.problems:
        known = problem.where.startswith(where) or ": line " in problem.where
        yield problem if known else problem.inside(where)


def measure(measures: Sequence[Placed], spec: ModelSpec, training: TrainingSpec) -> Callable[[Model], dict[str, float | None]]:
    """A function that measures a trained model. Its results by name; None for one that is not finite."""
    opened = [(each.spec.prefix, each.gathered.open(spec)) for each in measures]

    def results(model: Model) -> dict[str, float | None]:
        return {f"{prefix}.{name}": finite(value) for prefix, run in opened for name, value in run(model, training).items()}

    return results
