"""Forward passes of a trained model over examples, and what a measure has in common with others."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError
from pairform.training.data.batches import Contents, Example, Lengths, collate, longest
from pairform.training.data.file_data import digests
from pairform.training.data.files import Allowance, read_lines
from pairform.training.data.globs import find_files
from pairform.training.data.objectives import IGNORED
from pairform.training.data.pairs import PairFiles
from pairform.training.data.text_encoding import TextEncoding
from pairform.training.data.texts import Texts
from pairform.training.settings import TrainingSpec
from pairform.training.step import Computation


class Opened(Protocol):
    """A measure in a model's token ids."""

    @property
    def lengths(self) -> Lengths:
        """Tokens of the longest source and target that the model reads."""
        ...

    def __call__(self, model: Model, settings: TrainingSpec) -> dict[str, float]:
        """What is measured, by the last part of its name."""
        ...


class Gathered(Protocol):
    """A measure with the contents of its files."""

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each file that was read, by its path relative to the study's folder."""
        ...

    def open(self, spec: ModelSpec) -> Opened:
        """For a model; `SpecError` if it cannot be measured."""
        ...


class Line(NamedTuple):
    """A line of a file of examples. where: its file and line number, for errors."""

    where: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class FileLines:
    """The lines of the files that a pattern matches, and their digests."""

    lines: list[Line]
    digests: dict[str, str]

    @classmethod
    def read(cls, folder: Path, pattern: str, where: str) -> "FileLines":
        files = find_files(folder, (pattern,), where)
        allowance = Allowance()
        return cls([Line(*line) for file in files for line in read_lines(file, allowance)], digests(folder, files))


def check_text(contents: Contents, where: str) -> None:
    """Raise `SpecError` for a study whose data is no text."""
    if not isinstance(contents, Texts | PairFiles):
        found = "a file of texts, in a study of a synthetic task"
        raise SpecError(Problem(where, found, "data of text or pairs, whose tokens texts have"))


def text_encoding(contents: Contents, spec: ModelSpec) -> TextEncoding:
    """How the study's data turns texts into a model's tokens."""
    assert isinstance(contents, Texts | PairFiles), "checked by check_text"
    return TextEncoding.of(spec, contents.files)


def encoded(text: str, where: str, field: str, encode: Any) -> list[int]:
    """The tokens of a text; `SpecError` if there is none."""
    tokens: list[int] = encode(text)
    if not tokens:
        raise SpecError(Problem(where, f"no token in the field {field!r}", "at least one"))
    return tokens


def longest_of(spec: ModelSpec, examples: Sequence[Example]) -> Lengths:
    """Lengths of the longest batch of these examples."""
    return longest(spec, {(len(source), len(target)) for source, target in examples})


def computation(settings: TrainingSpec) -> Computation:
    """The device and the number format of a trial."""
    if settings.dtype == "float32":
        return Computation(settings.device)
    return Computation(settings.device, partial(torch.autocast, torch.device(settings.device).type, torch.bfloat16))


def forward(model: Model, batch: list[Example], settings: TrainingSpec) -> dict[str, Any]:
    """The `loss` of a batch, the model's `output`, and the `labels`, `[batch, length]`, that it was compared with."""
    inputs = {name: tensor.to(settings.device) for name, tensor in collate(batch, model.spec).items()}
    with computation(settings).context():
        output = model(**inputs)
        return {"loss": output.loss, "output": output, "labels": inputs["labels"]}


def batches(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    for begin in range(0, len(examples), size):
        yield list(examples[begin : begin + size])


def predictions(model: Model, result: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits, `[batch, length, vocabulary]`, and the label of each, `[batch, length]`; `IGNORED` where there is none."""
    logits, labels = result["output"].logits, result["labels"]
    if model.spec.encoder is None:  # each token predicts the next
        return logits[:, :-1], labels[:, 1:]
    return logits, labels


@torch.no_grad()
def validate(model: Model, examples: Sequence[Example], settings: TrainingSpec, rows: int | None = None) -> dict[str, float]:
    """Mean loss and accuracy over target tokens, and the fraction of targets that greedy decoding would reproduce.

    The last needs no decoding: greedy decoding reproduces a target if each token has the highest probability after the correct
    ones before it.

    rows: examples at a time. Default: as many as in training.
    """
    model.eval()
    loss, correct, exact, tokens = 0.0, 0, 0, 0
    for batch in batches(examples, rows or settings.batch):
        result = forward(model, batch, settings)
        logits, labels = predictions(model, result)
        predicted = logits.argmax(-1)
        counted = labels >= 0
        hits = predicted == labels  # never at an ignored label, which is no token id
        count = int(counted.sum())
        loss += result["loss"].item() * count
        correct += int(hits.sum())
        exact += int((hits | ~counted).all(1).sum())
        tokens += count
    model.train()
    return {"loss": loss / tokens, "accuracy": correct / tokens, "exact_match": exact / len(examples)}


@torch.no_grad()
def log_likelihoods(model: Model, examples: Sequence[Example], settings: TrainingSpec) -> list[float]:
    """The log-likelihood of each target, after its source: the sum over its tokens."""
    model.eval()
    found: list[float] = []
    for batch in batches(examples, settings.batch):
        logits, labels = predictions(model, forward(model, batch, settings))
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        found += (-losses.view(labels.shape).double().sum(1)).tolist()
    model.train()
    return found


def finite(value: float) -> float | None:
    """The value; None if it is not finite, which JSON cannot write."""
    return value if math.isfinite(value) else None
