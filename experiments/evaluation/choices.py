"""Questions whose answers are compared by their likelihood (cloze form)."""

import functools
import statistics
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.computing import FileLines, check_text, encoded, log_likelihoods, longest_of, text_encoding
from pairform.experiments.evaluation.specs import Choices
from pairform.registry import Problem, SpecError, shorten
from pairform.training.data.batches import Contents, Example
from pairform.training.data.files import text_at
from pairform.training.data.text_encoding import TextEncoding
from pairform.training.settings import TrainingSpec

FEWEST_CHOICES = 2


@dataclass(frozen=True)
class Question:
    """where: its file and line number, for errors. answer: place of the right choice."""

    where: str
    source: str
    choices: tuple[str, ...]
    answer: int


class QuestionFile:
    """The questions of a file."""

    def __init__(self, spec: Choices, folder: Path, where: str, contents: Contents) -> None:
        check_text(contents, where)
        found = FileLines.read(folder, spec.file, f"{where}.file")
        self.spec, self.contents, self.digests = spec, contents, found.digests
        self.questions = [self.question(line.where, line.fields) for line in found.lines]
        self.examples = functools.cache(self.encoded)

    def question(self, where: str, line: dict[str, Any]) -> Question:
        spec = self.spec
        texts, answer = line.get(spec.choices), line.get(spec.answer)
        if not isinstance(texts, list) or len(texts) < FEWEST_CHOICES:
            raise SpecError(Problem(f"{where}: {spec.choices}", shorten(texts), "a list of two or more texts"))
        named = {f"{spec.choices}[{place}]": text for place, text in enumerate(texts)}
        choices = tuple(text_at(where, named, name) for name in named)
        if type(answer) is not int or not 0 <= answer < len(choices):
            expected = f"the place of the right choice, from 0 to {len(choices) - 1}"
            raise SpecError(Problem(f"{where}: {spec.answer}", shorten(answer), expected))
        return Question(where, text_at(where, line, spec.source), choices, answer)

    def open(self, spec: ModelSpec) -> "OpenedChoices":
        examples = self.examples(text_encoding(self.contents, spec))
        return OpenedChoices(self.questions, examples, longest_of(spec, examples))

    def encoded(self, encoding: TextEncoding) -> list[Example]:
        """The choices of all questions, one after another, each after its source."""
        ending = [encoding.end] if self.spec.end else []
        examples: list[Example] = []
        for each in self.questions:
            source = encoded(each.source, each.where, self.spec.source, encoding.source)
            examples += [
                (source, [*encoded(text, each.where, self.spec.choices, encoding.target), *ending]) for text in each.choices
            ]
        return examples


@dataclass(frozen=True)
class OpenedChoices:
    """examples: the choices of all questions, one after another, each after its source."""

    questions: list[Question]
    examples: list[Example]
    lengths: tuple[int, int]

    def __call__(self, model: Model, settings: TrainingSpec) -> dict[str, float]:
        """Accuracies by the likelihood of a whole choice and by its mean over tokens; and the log-likelihood of the right
        choices, as the mean over questions and as the mean over tokens."""
        scores = log_likelihoods(model, self.examples, settings)
        counts = [len(target) for _, target in self.examples]
        bounds = pairwise(accumulate((len(each.choices) for each in self.questions), initial=0))
        hits, normalized, right, tokens = [], [], [], 0
        for each, (begin, end) in zip(self.questions, bounds, strict=True):
            own, lengths = scores[begin:end], counts[begin:end]
            means = [score / length for score, length in zip(own, lengths, strict=True)]
            hits.append(best(own) == each.answer)
            normalized.append(best(means) == each.answer)
            right.append(own[each.answer])
            tokens += lengths[each.answer]
        return {
            "accuracy": statistics.fmean(hits),
            "normalized_accuracy": statistics.fmean(normalized),
            "log_likelihood": statistics.fmean(right),
            "token_log_likelihood": sum(right) / tokens,
        }


def best(scores: list[float]) -> int:
    """The place of the largest; the first of several."""
    return max(range(len(scores)), key=scores.__getitem__)
