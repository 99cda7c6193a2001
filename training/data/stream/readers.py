"""Examples of one source of data: the windows of its text, or its pairs."""

from typing import Protocol

import numpy as np

from pairform.training.data.encoder_tokens import EncoderTokens
from pairform.training.data.objectives import Marks, OnText, Piece, PrefixLM, SequencePairs, SpanCorruption, Text
from pairform.training.data.stream.layout import Layout
from pairform.training.data.stream.order import Epochs
from pairform.training.data.stream.packing import Row
from pairform.training.data.stream.windows import PairStream, Windows
from pairform.training.data.tokens import Tokens

SAMPLED = 1000
"""Pairs whose mean length says how many pairs are a batch."""


class Reader(Protocol):
    """The examples of one source in the order in which they are read."""

    def read(self, draw: int, numbers: np.random.Generator) -> tuple[Row, int]:
        """The examples of window, or pair, number `draw` as the model takes them, and the number of tokens in none.

        numbers: for what the objective draws.
        """
        ...


class ModelIds:
    """The model's ids of a stream's tokens, which are ids already, or bytes."""

    def __init__(self, tokens: Tokens) -> None:
        self.of_bytes = np.array(tokens.bytes_, np.int32) if tokens.bytes_ else None

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        return tokens if self.of_bytes is None else self.of_bytes[tokens]


class WindowReader:
    """Windows of text, by an objective.

    join:    a window is one text with end tokens in it.
    encoder: of an encoder with a tokenizer of its own.
    """

    def __init__(
        self,
        windows: Windows,
        objective: OnText,
        marks: Marks,
        layout: Layout,
        tokens: Tokens,
        join: bool,
        encoder: EncoderTokens | None = None,
    ) -> None:
        self.windows, self.objective, self.marks, self.layout, self.join = windows, objective, marks, layout, join
        self.ids, self.encoder = ModelIds(tokens), encoder

    def read(self, draw: int, numbers: np.random.Generator) -> tuple[Row, int]:
        fragments = self.windows.fragments(draw)
        texts = [Text(self.ids(fragment.tokens), fragment.ends) for fragment in fragments]
        starts = [fragment.starts for fragment in fragments]
        if self.join:
            texts, starts = [Text(np.concatenate([text.with_end(self.marks.end) for text in texts]), False)], [False]
        row, dropped = [], 0
        for text, starting, piece in zip(texts, starts, self.objective.examples(texts, numbers, self.marks), strict=True):
            if piece is None:
                dropped += len(text.tokens)
            else:
                if self.encoder is not None:
                    piece = piece._replace(source=self.of_encoder(piece.source, self.encoder))
                if not len(piece.source):
                    dropped += len(text.tokens)
                    continue
                row.append(self.layout.placed(piece, self.objective.generates, starting))
        return row, dropped

    def of_encoder(self, source: np.ndarray, encoder: EncoderTokens) -> np.ndarray:
        """A source in the encoder's tokens, at most as many as the objective's longest source has."""
        assert isinstance(self.objective, PrefixLM | SpanCorruption), "of encoder-decoders"
        return encoder(source, max(length for length, _ in self.objective.lengths), last=True)


class PairReader:
    """Pairs, each once in an epoch. encoder: of an encoder with a tokenizer of its own."""

    def __init__(
        self,
        stream: PairStream,
        epochs: Epochs,
        objective: SequencePairs,
        marks: Marks,
        layout: Layout,
        tokens: Tokens,
        encoder: EncoderTokens | None = None,
    ) -> None:
        self.stream, self.epochs, self.objective, self.marks, self.layout = stream, epochs, objective, marks, layout
        self.ids, self.encoder = ModelIds(tokens), encoder

    def read(self, draw: int, numbers: np.random.Generator) -> tuple[Row, int]:
        source, target = self.stream.pair(self.epochs.item(draw)[1])
        piece = self.example(source, target)
        return ([], len(target)) if piece is None else ([self.layout.placed(piece, self.objective.generates, starts=True)], 0)

    def example(self, source: np.ndarray, target: np.ndarray) -> Piece | None:
        ids = self.ids(source)
        if self.encoder is not None and len(ids):
            ids = self.encoder(ids, self.objective.source, special=True)
        return self.objective.pair(ids, self.ids(target), self.marks)

    def mean_tokens(self) -> float:
        """Mean number of source and target tokens of pairs spread over the source."""
        step = -(-self.stream.documents // SAMPLED)
        pieces = [self.example(*self.stream.pair(index)) for index in range(0, self.stream.documents, step)]
        return float(np.mean([0 if piece is None else len(piece.source) + len(piece.target) for piece in pieces]))
