"""A linear classifier of a model's hidden states, which shows what they hold (Alain and Bengio 2016, arXiv 1610.01644)."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.computing import (
    FileLines,
    Line,
    batches,
    check_text,
    encoded,
    forward,
    longest_of,
    text_encoding,
)
from pairform.experiments.evaluation.specs import LinearProbe
from pairform.registry import Problem, SpecError, shorten
from pairform.training.data.batches import Contents, Example
from pairform.training.data.files import text_at
from pairform.training.data.text_encoding import TextEncoding
from pairform.training.metrics import check_package
from pairform.training.settings import TrainingSpec

MOST_VALUES = 1 << 27
"""Limit of the hidden states of one file, which are kept in memory: 1 GiB in float64."""
MOST_CLASSES = 10_000


class Labelled(NamedTuple):
    """A source whose text has a class, or each of whose words has one. where: its file and line number."""

    where: str
    text: str
    words: tuple[str, ...] | None
    labels: tuple[str, ...]


class ProbeFiles:
    """The sources to fit a classifier on and those to measure it on."""

    def __init__(self, spec: LinearProbe, folder: Path, where: str, contents: Contents) -> None:
        check_package("scipy", f"{where}: linear_probe")
        check_text(contents, where)
        train, test = (FileLines.read(folder, getattr(spec, name), f"{where}.{name}") for name in ("train", "test"))
        self.spec, self.contents, self.digests = spec, contents, train.digests | test.digests
        self.train, self.test = ([self.labelled(line) for line in each.lines] for each in (train, test))
        self.sources = functools.cache(self.encoded)
        self.classes = sorted({label for each in self.train for label in each.labels})
        if not 2 <= len(self.classes) <= MOST_CLASSES:
            found = f"{len(self.classes)} classes in {shorten(spec.train)}"
            raise SpecError(Problem(f"{where}.train", found, f"from 2 to {MOST_CLASSES:,}"))
        for each in self.test:
            if unknown := set(each.labels) - set(self.classes):
                found = f"the class {shorten(min(unknown))}, which is not in {shorten(spec.train)}"
                raise SpecError(Problem(f"{each.where}: {spec.target}", found, "one of the training classes"))

    def encoded(self, encoding: TextEncoding) -> tuple["Sources", "Sources"]:
        """The sources of both files."""
        train, test = (Sources.of(each, encoding, self.classes, self.spec.source) for each in (self.train, self.test))
        return train, test

    def labelled(self, line: Line) -> Labelled:
        spec, (where, fields) = self.spec, line
        if spec.pooling == "mean":
            label = class_of(fields.get(spec.target), f"{where}: {spec.target}")
            return Labelled(where, text_at(where, fields, spec.source), None, (label,))
        words, labels = fields.get(spec.source), fields.get(spec.target)
        if not isinstance(words, list) or not words:
            raise SpecError(Problem(f"{where}: {spec.source}", shorten(words), "a list of words"))
        if not isinstance(labels, list) or len(labels) != len(words):
            raise SpecError(Problem(f"{where}: {spec.target}", shorten(labels), f"a list of {len(words)} classes, one a word"))
        named = {f"{spec.source}[{place}]": word for place, word in enumerate(words)}
        return Labelled(
            where,
            "",
            tuple(text_at(where, named, name) for name in named),
            tuple(class_of(label, f"{where}: {spec.target}[{place}]") for place, label in enumerate(labels)),
        )

    def open(self, spec: ModelSpec) -> "OpenedProbe":
        train, test = self.sources(text_encoding(self.contents, spec))
        width = next(iter(spec.stacks.values())).width
        for name, each in (("train", train), ("test", test)):
            if len(each.labels) * width > MOST_VALUES:
                found = f"{len(each.labels):,} hidden states of width {width:,}"
                raise SpecError(Problem(name, found, f"at most {MOST_VALUES // width:,}", "Choose a part of the file."))
        lengths = longest_of(spec, [*train.examples, *test.examples])
        return OpenedProbe(train, test, len(self.classes), self.spec.l2, lengths)


def class_of(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SpecError(Problem(where, shorten(value), "a class: a text or a whole number"))
    return str(value)


@dataclass(frozen=True)
class Sources:
    """Sources in a model's token ids.

    examples: each source with one token as its target, which decoders need.
    parts:    of each source, where the tokens of its parts begin and end.
    labels:   the class of each part of all sources.
    """

    examples: list[Example]
    parts: list[list[tuple[int, int]]]
    labels: list[int]

    @classmethod
    def of(cls, rows: list[Labelled], encoding: TextEncoding, classes: list[str], field: str) -> "Sources":
        numbers = {name: number for number, name in enumerate(classes)}
        examples: list[Example] = []
        parts: list[list[tuple[int, int]]] = []
        for row in rows:
            if row.words is None:
                source = encoded(row.text, row.where, field, encoding.source)
                places = [(0, len(source))]
            else:
                source, places = encoding.words(row.words)
                if empty := [number for number, (begin, end) in enumerate(places) if begin == end]:
                    raise SpecError(Problem(row.where, f"no token in {field}[{empty[0]}]", "at least one"))
            examples.append((source, [encoding.end]))
            parts.append(places)
        return cls(examples, parts, [numbers[label] for row in rows for label in row.labels])


@dataclass(frozen=True)
class OpenedProbe:
    train: Sources
    test: Sources
    classes: int
    l2: float
    lengths: tuple[int, int]

    def __call__(self, model: Model, settings: TrainingSpec) -> dict[str, float]:
        """The classifier's accuracy and mean cross-entropy on the test file."""
        train, test = (hidden_states(model, each, settings) for each in (self.train, self.test))
        mean, deviation = train.mean(0), train.std(0, correction=0)
        deviation[deviation == 0] = 1
        train, test = (train - mean) / deviation, (test - mean) / deviation
        weight, bias = fit(train, torch.tensor(self.train.labels), self.classes, self.l2)
        scores, labels = test @ weight.T + bias, torch.tensor(self.test.labels)
        return {
            "accuracy": (scores.argmax(1) == labels).double().mean().item(),
            "loss": torch.nn.functional.cross_entropy(scores, labels).item(),
        }


@torch.no_grad()
def hidden_states(model: Model, sources: Sources, settings: TrainingSpec) -> Float[Tensor, "parts width"]:
    """The mean hidden state of each part of each source, in float64: the encoder's last ones, or those of the only stack."""
    model.eval()
    found: list[Tensor] = []
    parts = iter(sources.parts)
    for batch in batches(sources.examples, settings.batch):
        output = forward(model, batch, settings)["output"]
        states = output.last_hidden_state if model.spec.encoder is None else output.encoder_last_hidden_state
        for row in states.double().cpu():
            found += [row[begin:end].mean(0) for begin, end in next(parts)]
    model.train()
    return torch.stack(found)


def fit(
    states: Float[Tensor, "rows width"], labels: Int[Tensor, " rows"], classes: int, l2: float
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
    """Weights and biases of multinomial logistic regression, by L-BFGS from zero.

    They minimise the mean cross-entropy plus `l2 / 2` times the squared norm of the weights. The minimum is unique, so that the
    result does not depend on the way there.
    """
    from scipy.optimize import minimize

    width = states.shape[1]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        table = torch.tensor(values, requires_grad=True)
        weight, bias = table[:-classes].view(classes, width), table[-classes:]
        loss = torch.nn.functional.cross_entropy(states @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()
        (gradient,) = torch.autograd.grad(loss, table)
        return loss.item(), gradient.numpy()

    start = np.zeros(classes * (width + 1))
    options = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-9}
    found = torch.from_numpy(minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x)
    return found[:-classes].view(classes, width), found[-classes:]
