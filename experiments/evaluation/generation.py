"""Greedy generation, compared with targets."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.computing import (
    FileLines,
    batches,
    check_text,
    computation,
    encoded,
    longest_of,
    text_encoding,
)
from pairform.experiments.evaluation.specs import Generation
from pairform.training.data.batches import Contents, Example, padded, prompt
from pairform.training.data.files import text_at
from pairform.training.data.pairs import PairFiles
from pairform.training.data.text_encoding import TextEncoding
from pairform.training.data.texts import Texts
from pairform.training.data.tokens import Tokens
from pairform.training.settings import TrainingSpec


class GenerationFile:
    """The sources and targets of a file, or the study's validation examples."""

    def __init__(self, spec: Generation, folder: Path, where: str, contents: Contents) -> None:
        if spec.file is not None:
            check_text(contents, f"{where}.file")
        self.spec, self.contents = spec, contents
        self.examples = functools.cache(self.encoded)
        found = FileLines([], {}) if spec.file is None else FileLines.read(folder, spec.file, f"{where}.file")
        self.digests = found.digests
        self.pairs = [
            (line.where, *(text_at(line.where, line.fields, field) for field in (spec.source, spec.target)))
            for line in found.lines
        ]

    def open(self, spec: ModelSpec) -> "OpenedGeneration":
        encoding = text_encoding(self.contents, spec) if isinstance(self.contents, Texts | PairFiles) else None
        if self.spec.file is None or encoding is None:
            examples = self.contents.open(spec).validation()
        else:
            examples = self.examples(encoding)
        return OpenedGeneration(examples, longest_of(spec, examples), None if encoding is None else encoding.tokens)

    def encoded(self, encoding: TextEncoding) -> list[Example]:
        """The examples of the file."""
        return [
            (encoded(source, where, self.spec.source, encoding.source), [*encoding.target(target), encoding.end])
            for where, source, target in self.pairs
        ]


@dataclass(frozen=True)
class OpenedGeneration:
    """tokens: how targets are decoded to text; None if they are no text."""

    examples: list[Example]
    lengths: tuple[int, int]
    tokens: Tokens | None

    def __call__(self, model: Model, settings: TrainingSpec) -> dict[str, float]:
        equal = 0
        for batch in batches(self.examples, settings.batch):
            made = greedy(model, batch, settings)
            equal += sum(self.same(own, target, model.spec) for own, (_, target) in zip(made, batch, strict=True))
        return {"exact_match": equal / len(self.examples)}

    def same(self, made: list[int], target: list[int], spec: ModelSpec) -> bool:
        """Whether both are equal up to the end token, as tokens or, with a tokenizer, as text.

        A target without an end token, of a window of text, is compared with as many tokens as it has.
        """
        ends = spec.tokens.ends
        ended = any(token in ends for token in target)
        if ended and not any(token in ends for token in made):
            return False
        own, wanted = until_end(made if ended else made[: len(target)], ends), until_end(target, ends)
        if own == wanted:
            return True
        tokens = self.tokens
        return tokens is not None and tokens.tokenizer is not None and tokens.decode(own) == tokens.decode(wanted)


def until_end(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
    """The tokens before the first end token."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]


def greedy(model: Model, batch: list[Example], settings: TrainingSpec) -> list[list[int]]:
    """What the model generates from each source, at most as many tokens as the longest target of the batch has."""
    rows = [prompt(source, model.spec) for source, _ in batch]
    ids = padded(rows, pad_of(model.spec), 0)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    most = max(len(target) for _, target in batch)
    own, model.generation = model.generation, GenerationSpec()  # a checkpoint's own settings may not be greedy
    try:
        with computation(settings).context():
            made = model.generate(ids.to(settings.device), mask.to(settings.device).long(), max_new_tokens=most)
    finally:
        model.generation = own
    begin = ids.shape[1] if model.spec.encoder is None else 1
    return made[:, begin:].tolist()


def pad_of(spec: ModelSpec) -> int:
    pad = spec.tokens_of(next(iter(spec.stacks))).pad
    assert pad is not None, "checked by check_spec"
    return pad
