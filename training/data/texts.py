"""Running text as data: random windows, which the objective turns into sources and targets."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveInt, Problem, SpecError
from pairform.training.data.batches import TRAINING, VALIDATION, Example, Ids, Lengths, generator, longest
from pairform.training.data.encoder_tokens import EncoderTokens
from pairform.training.data.file_data import FileData, Files
from pairform.training.data.files import Allowance, is_jsonl, read_lines, read_text, text_at
from pairform.training.data.marks import marks_of
from pairform.training.data.objectives import Marks, PrefixLM, TextToText
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
        if problems := [problem.inside("data.objective") for problem in self.objective.check()]:
            raise SpecError(problems)
        files = self.find(folder)
        return Texts(self, files, files.read(self.texts_of))

    def texts_of(self, file: Path, allowance: Allowance) -> list[str]:
        """A file as one text, or each line of a `.jsonl` file."""
        if not is_jsonl(file):
            return [read_text(file, allowance)]
        return [text_at(where, line, self.field) for where, line in read_lines(file, allowance)]


class Texts:
    """Training and held-out texts of `files`."""

    def __init__(self, spec: Text, files: Files, texts: tuple[list[str], list[str]]) -> None:
        self.spec, self.files, self.texts = spec, files, texts
        self.digests = files.digests
        self.stream = functools.cache(self.encoded)

    def cut_as(self, spec: Text) -> "Texts":
        """The same texts under another objective; they are encoded once for both."""
        other = copy.copy(self)
        other.spec = spec
        return other

    def open(self, spec: ModelSpec) -> "Windows":
        """The texts in a model's token ids; `SpecError` if it has too few, or there is too little text."""
        objective, own = self.spec.objective, self.files.encoder_tokenizer
        own = own if spec.assembly == "encoder_decoder" else None
        ids = Ids.of(spec, None if own is None else "decoder")
        tokens = open_tokens(ids, self.files.tokenizer)
        marks = marks_of(objective, ids, tokens)
        encoder = None if own is None else EncoderTokens.of(spec, tokens, own, objective, marks)
        train, held_out = self.stream(tokens, ids.end)
        for name, stream, found in (("train", train, self.files.train), ("held_out", held_out, self.files.held_out)):
            if len(stream) < objective.window:
                short = f"{len(stream)} tokens in {len(found)} files"
                raise SpecError(Problem(f"data.{name}", short, f"at least one window: {objective.window} tokens"))
        return Windows(self.spec, (train, held_out), longest(spec, objective.lengths), marks, encoder)

    def encoded(self, tokens: Tokens, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of all training texts and of all held-out texts, each text followed by an end token."""
        train, held_out = (
            np.concatenate([part for text in split for part in (tokens.encode(text), [end])], dtype=np.int32)
            for split in self.texts
        )
        return train, held_out


@dataclass(frozen=True)
class Windows:
    """Windows at uniformly random positions of the text.

    streams: tokens of the training texts and of the held-out ones.
    marks:   the ids that the objective adds.
    encoder: of an encoder with a tokenizer of its own.
    """

    text: Text
    streams: tuple[np.ndarray, np.ndarray]
    lengths: Lengths
    marks: Marks
    encoder: EncoderTokens | None = None

    @property
    def measured(self) -> int:
        return self.text.validation

    def train(self, seed: int, step: int, count: int) -> list[Example]:
        numbers = generator(TRAINING, seed, step)
        return [self.example(self.streams[0], numbers) for _ in range(count)]

    def validation(self) -> list[Example]:
        numbers = generator(VALIDATION)
        return [self.example(self.streams[1], numbers) for _ in range(self.text.validation)]

    def example(self, stream: np.ndarray, numbers: np.random.Generator) -> Example:
        window = self.text.objective.window
        # windows may cross from one text to the next, over an end token
        begin = int(numbers.integers(len(stream) - window + 1))
        source, target = self.text.objective.example(stream[begin : begin + window], numbers, self.marks)
        if self.encoder is not None:
            most = max(length for length, _ in self.text.objective.lengths)
            source = self.encoder(np.array(source, np.int32), most, last=True).tolist()
            # of special tokens alone there is no text
            source = source or list(self.encoder.before + self.encoder.after) or [self.marks.end]
        return source, target
