"""Text files as data: windows of running text, of which the objective makes sources and targets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, Strict

from pairform.assemblies.specs import ModelSpec
from pairform.experiments.batches import TRAINING, VALIDATION, Example, Examples, Ids, generator
from pairform.experiments.objectives import Objective, PrefixLM
from pairform.experiments.tokens import Tokens, open_tokens
from pairform.registry import PairformError, PositiveInt, Problem, Spec, SpecError

Globs = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
JSONL = ".jsonl"


class Text(Spec):
    """Running text out of files, given by patterns such as `docs/*.md` from the study's folder on.

    train:       files to learn from, without those that `held_out` names as well.
    held_out:    files to measure on.
    field:       of each line of a `.jsonl` file: what holds the text.
    tokenizer:   a file of the library `tokenizers`; absent, bytes are tokens.
    validation:  windows of the held-out text that trials are measured on.
    """

    name: Literal["text"]
    train: Globs
    held_out: Globs
    field: str = "text"
    tokenizer: str | None = None
    objective: Objective = PrefixLM(name="prefix_lm")
    validation: PositiveInt = 128

    def check(self, folder: Path, spec: ModelSpec) -> Iterator[Problem]:
        try:
            self.open(folder, spec)
        except PairformError as error:
            yield from error.problems

    def open(self, folder: Path, spec: ModelSpec) -> Examples:
        """The files, read and encoded. Missing, empty and unreadable ones raise `SpecError`."""
        ids = Ids.of(spec)
        tokens = open_tokens(ids, None if self.tokenizer is None else folder / self.tokenizer)
        lacking = list(self.objective.check(len(tokens.spare)))
        if lacking:
            raise SpecError(lacking)
        held_out = find_files(folder, self.held_out, "data.held_out")
        train = [file for file in find_files(folder, self.train, "data.train") if file not in held_out]
        streams = [
            read_stream(files, f"data.{name}", self.field, tokens, ids.end, self.objective.window)
            for name, files in (("train", train), ("held_out", held_out))
        ]
        return Windows(self, streams[0], streams[1], tokens.spare, ids.end)


class Windows:
    """Windows at random places of the text."""

    def __init__(self, text: Text, train: np.ndarray, held_out: np.ndarray, spare: tuple[int, ...], end: int) -> None:
        self.text = text
        self.streams = (train, held_out)
        self.spare = spare
        self.end = end
        self.lengths = text.objective.lengths

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        numbers = generator(TRAINING, seed, step)
        return [self.example(self.streams[0], numbers) for _ in range(count)]

    def validation(self) -> list[Example]:
        numbers = generator(VALIDATION)
        return [self.example(self.streams[1], numbers) for _ in range(self.text.validation)]

    def example(self, stream: np.ndarray, numbers: np.random.Generator) -> Example:
        window = self.text.objective.window
        begin = int(numbers.integers(len(stream) - window + 1))
        return self.text.objective.split(stream[begin : begin + window].tolist(), numbers, self.spare, self.end)


def find_files(folder: Path, patterns: tuple[str, ...], where: str) -> list[Path]:
    """Files by name; a pattern that none has is an error."""
    found: set[Path] = set()
    for pattern in patterns:
        some = [file for file in folder.glob(pattern) if file.is_file()]
        if not some:
            raise SpecError(Problem(where, f"no file {pattern!r} in {folder.absolute()}", "at least one"))
        found.update(file.resolve() for file in some)
    return sorted(found)


def read_stream(files: list[Path], where: str, field: str, tokens: Tokens, end: int, window: int) -> np.ndarray:
    """The tokens of all texts, an end token behind each."""
    stream: list[int] = []
    for file in files:
        for text in read_texts(file, field):
            stream += [*tokens.encode(text), end]
    if len(stream) < window:
        raise SpecError(Problem(where, f"{len(stream)} tokens in {len(files)} files", f"at least one window: {window} tokens"))
    return np.array(stream)


def read_texts(file: Path, field: str) -> list[str]:
    """A file as one text, or each line of a `.jsonl` file."""
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(str(file), str(error), "text in UTF-8")) from None
    if not content.strip():
        raise SpecError(Problem(str(file), "an empty file", "text"))
    if file.suffix != JSONL:
        return [content]
    return [text_of_line(file, number, line, field) for number, line in enumerate(content.splitlines(), 1) if line.strip()]


def text_of_line(file: Path, number: int, line: str, field: str) -> str:
    try:
        text = json.loads(line)[field]
    except (ValueError, KeyError, TypeError, IndexError):
        text = None
    if not isinstance(text, str):
        found = "no such text"
        raise SpecError(Problem(f"{file}: line {number}", found, f"an object with a text in the field {field!r}"))
    return text
