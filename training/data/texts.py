"""Running text as data: random windows, which the objective turns into sources and targets."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveInt, Problem, SpecError
from pairform.training.data.batches import TRAINING, VALIDATION, Example, Ids, Lengths, generator, longest
from pairform.training.data.file_data import FileData
from pairform.training.data.files import Allowance, is_jsonl, read_lines, read_text, text_at
from pairform.training.data.marks import marks_of
from pairform.training.data.objectives import Marks, PrefixLM, TextToText
from pairform.training.data.tokenizer_files import Tokenizer
from pairform.training.data.tokens import Tokens, open_tokens


class Text(FileData):
    """Running text from files."""

    name: Literal["text"]
    field: str = Field(default="text", description="Field of each line of a `.jsonl` file with the text.")
    objective: TextToText = Field(
        default=PrefixLM(name="prefix_lm"), description="How a window of text becomes a source and a target."
    )
    validation: PositiveInt = Field(default=128, description="Number of held-out windows for validation.")

    def gather(self, folder: Path) -> "Texts":
        """The texts of all files; `SpecError` for missing, empty and unreadable ones."""
        problems = [problem.inside("data.objective") for problem in self.objective.check()]
        if problems:
            raise SpecError(problems)
        files, allowance = self.find(folder), Allowance()
        splits = (files.train, files.held_out)
        texts = tuple([text for file in split for text in self.texts_of(file, allowance)] for split in splits)
        return Texts(self, texts, (len(files.train), len(files.held_out)), files.tokenizer, files.digests)

    def texts_of(self, file: Path, allowance: Allowance) -> list[str]:
        """A file as one text, or each line of a `.jsonl` file."""
        if not is_jsonl(file):
            return [read_text(file, allowance)]
        return [text_at(where, line, self.field) for where, line in read_lines(file, allowance)]


class Texts:
    """Training and held-out texts. files: how many files each came from."""

    def __init__(
        self,
        spec: Text,
        texts: Sequence[list[str]],
        files: tuple[int, int],
        tokenizer: Tokenizer | None,
        digests: dict[str, str],
    ) -> None:
        self.spec = spec
        self.texts = texts
        self.files = files
        self.tokenizer = tokenizer
        self.digests = digests
        self.stream = functools.cache(self.encoded)

    def open(self, spec: ModelSpec) -> "Windows":
        """The texts in a model's token ids; `SpecError` if it has too few, or there is too little text."""
        ids = Ids.of(spec)
        tokens = open_tokens(ids, self.tokenizer)
        marks = marks_of(self.spec.objective, ids, tokens)
        train, held_out = self.stream(tokens, ids.end)
        lengths = longest(spec, self.spec.objective.lengths)
        return Windows(self.spec, (train, held_out), lengths, marks)

    def encoded(self, tokens: Tokens, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of all training texts and of all held-out texts, each text followed by an end token."""
        window = self.spec.objective.window
        train, held_out = (
            np.concatenate([part for text in split for part in (tokens.encoded(text), [end])], dtype=np.int32)
            for split in self.texts
        )
        for name, stream, count in zip(("train", "held_out"), (train, held_out), self.files, strict=True):
            if len(stream) < window:
                found = f"{len(stream)} tokens in {count} files"
                raise SpecError(Problem(f"data.{name}", found, f"at least one window: {window} tokens"))
        return train, held_out


class Windows:
    """Windows at uniformly random positions of the text."""

    def __init__(self, text: Text, streams: tuple[np.ndarray, np.ndarray], lengths: Lengths, marks: Marks) -> None:
        self.text = text
        self.streams = streams
        self.lengths = lengths
        self.marks = marks
        self.measured = text.validation

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        numbers = generator(TRAINING, seed, step)
        return [self.example(self.streams[0], numbers) for _ in range(count)]

    def validation(self) -> list[Example]:
        numbers = generator(VALIDATION)
        return [self.example(self.streams[1], numbers) for _ in range(self.text.validation)]

    def example(self, stream: np.ndarray, numbers: np.random.Generator) -> Example:
        window = self.text.objective.window
        begin = int(numbers.integers(len(stream) - window + 1))
        return self.text.objective.example(stream[begin : begin + window], numbers, self.marks)
