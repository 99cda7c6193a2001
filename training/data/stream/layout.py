"""How a model takes examples: as its input tensors, with a number for each example in a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem
from pairform.training.data.batches import Ids, check_spec
from pairform.training.data.objectives import IGNORED, Objective, Piece
from pairform.training.data.stream.packing import Row


def check_objective(objective: Objective, spec: ModelSpec) -> Iterator[Problem]:
    """Why a model cannot be trained with an objective. `data.objective` and fields of the spec are named."""
    for problem in objective.check():
        yield problem.inside("data.objective")
    name = getattr(objective, "name", "")
    if spec.assembly not in objective.assemblies:
        found, expected = f"{name} for a model of the assembly {spec.assembly}", " or ".join(objective.assemblies)
        yield Problem("data.objective", found, f"a model of the assembly {expected}")
    elif spec.decoder is not None:
        yield from (problem.inside("model") for problem in check_spec(spec))
    elif spec.head.name not in objective.heads:
        yield Problem("model.head.name", repr(spec.head.name), f"{' or '.join(objective.heads)}: {name} predicts tokens")
    elif spec.tokens.pad is None or spec.tokens_of("encoder").pad is None:
        yield Problem("model.tokens.pad", "nothing", "a token id, needed for batches")
    if spec.encoder is None and spec.decoder is not None and spec.decoder.prefixed:
        yield Problem(
            "model.decoder", "a mask with `prefix`", "none: rows hold several documents, whose prefixes are not masked"
        )


@dataclass(frozen=True)
class Layout:
    """A model's form of examples.

    assembly: the model's. An encoder-decoder reads source and target separately.
    pad:      fills input rows.
    start:    precedes the target that a decoder-only model generates.
    bos:      begins documents; None for no such token.
    """

    assembly: str
    pad: int
    start: int
    bos: int | None

    @classmethod
    def of(cls, spec: ModelSpec, ids: Ids, bos: bool) -> "Layout":
        first = next(iter(spec.stacks))
        pad = spec.tokens_of(first).pad
        assert pad is not None, "checked by check_objective"
        return cls(spec.assembly, pad, ids.start, spec.tokens_of(first).bos if bos else None)

    @property
    def pairs(self) -> bool:
        return self.assembly == "encoder_decoder"

    def placed(self, piece: Piece, generates: bool, starts: bool) -> Piece:
        """An example as the model reads it. With one stack this is the text and its labels.

        generates: see `Objective`. starts: a document begins here.
        """
        source, target = piece
        if not self.pairs and generates:
            source = np.concatenate((source, np.full(1, self.start, np.int32), piece.target))
            target = np.concatenate((np.full(len(source) - len(piece.target), IGNORED, np.int32), target))
        if self.bos is not None and starts:
            source = np.concatenate((np.full(1, self.bos, np.int32), source))
            if not self.pairs:
                target = np.concatenate((np.full(1, IGNORED, np.int32), target))
        if self.assembly == "decoder_only" and target[0] != IGNORED:  # nothing predicts a text's first token
            target = np.concatenate((np.full(1, IGNORED, np.int32), target[1:]))
        return Piece(source, target)

    def labels(self, piece: Piece) -> int:
        """The number of labels that count."""
        return len(piece.target) if self.pairs else int(np.count_nonzero(piece.target != IGNORED))

    def tokens(self, piece: Piece) -> int:
        """The number of source and target tokens."""
        return len(piece.source) + (len(piece.target) if self.pairs else 0)

    def tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The arguments of the model's forward pass, `[rows, length]`, padded on the right. Segments count from 1, and 0 is
        padding. There are none if every row is one example.
        """
        sources, of_sources = side(rows, 0, self.pad)
        targets, of_targets = side(rows, 1, IGNORED)
        tensors = {"input_ids": sources, "attention_mask": of_sources > 0, "labels": targets}
        if any(len(row) > 1 for row in rows):
            tensors["segment_ids"] = of_sources
            if self.pairs:
                tensors["decoder_segment_ids"] = of_targets
        return tensors


def as_text(rows: Sequence[Row], pad: int, bos: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """An encoder-decoder's rows as a decoder-only model reads them, such as a teacher: each source followed by its target.

    Args:
        bos: begins every text that does not begin with it; None for no such token.

    Returns:
        The arguments of the model's forward pass, `[rows, length]`, with segments if a row has several examples; and for each
        label, `[rows, target_length]`, the place of the token that predicts it, counted over all rows, or 0 at padding.
    """
    joined = [[Piece(np.concatenate(with_bos(piece, bos)), piece.target) for piece in row] for row in rows]
    tokens, segments = side(joined, 0, pad)
    targets, of_targets = side(rows, 1, IGNORED)
    places = torch.zeros_like(targets)
    for number, row in enumerate(joined):
        ends = np.cumsum([len(text) for text, _ in row])
        before = [np.arange(end - len(target), end) - 1 for end, (_, target) in zip(ends, row, strict=True)]
        if before:
            places[number, of_targets[number] > 0] = torch.from_numpy(np.concatenate(before)) + number * tokens.shape[1]
    inputs = {"input_ids": tokens, "attention_mask": segments > 0}
    if any(len(row) > 1 for row in rows):
        inputs["segment_ids"] = segments
    return inputs, places


def with_bos(piece: Piece, bos: int | None) -> tuple[np.ndarray, ...]:
    """The parts of a text that begins with `bos`."""
    return piece if bos is None or piece.source[:1] == bos else (np.full(1, bos, np.int32), *piece)


def side(rows: Sequence[Row], which: int, filler: int) -> tuple[Tensor, Tensor]:
    """The sources or the targets of rows, and the number of the example that each token belongs to; `[rows, length]`."""
    longest = max(sum([len(piece[which]) for piece in row]) for row in rows)
    shape = (len(rows), max(longest, 1))
    tokens, segments = np.full(shape, filler, np.int64), np.zeros(shape, np.int64)
    for row, (of_row, segments_of_row) in zip(rows, zip(tokens, segments, strict=True), strict=True):
        begin = 0
        for number, piece in enumerate(row, 1):
            end = begin + len(piece[which])
            of_row[begin:end] = piece[which]
            segments_of_row[begin:end] = number
            begin = end
    return torch.from_numpy(tokens), torch.from_numpy(segments)
