"""Streams in memory, and small models that read them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter
from tokenizers import Tokenizer, models
from torch import Tensor

import pairform
from pairform.training.data.objectives import AnyObjective
from pairform.training.data.stream import Batch, Batches
from tests.small_pairs import small_pair

END, WORDS = 1, 40
"""The models' end token, and the number of ids that documents have, from 3 on."""


class Part(NamedTuple):
    tokens: np.ndarray
    starts: bool
    ends: bool


@dataclass
class MemoryStream:
    """Documents in memory. `read` notes the windows that were asked for."""

    documents: Sequence[np.ndarray]
    weight: float = 1.0
    name: str = "memory"
    read: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ends = np.cumsum([len(document) + 1 for document in self.documents])
        self.length = int(self.ends[-1]) if len(self.ends) else 0

    def fragments(self, begin: int, end: int) -> list[Part]:
        self.read.append((begin, end))
        found = []
        number = int(self.ends.searchsorted(begin, side="right"))
        while begin < end:
            document = self.documents[number]
            first, last = int(self.ends[number]) - len(document) - 1, int(self.ends[number])
            part = document[begin - first : min(end - first, len(document))]
            found.append(Part(part, begin == first, last <= end))
            begin, number = last, number + 1
        return found

    def parts(self) -> list[Part]:
        """The documents of the windows that were asked for."""
        return [part for begin, end in [*self.read] for part in self.fragments(begin, end)]

    def window(self, begin: int, end: int) -> list[int]:
        """The tokens with end tokens, counted on a ring."""
        whole = [token for document in self.documents for token in (*document.tolist(), END)]
        return [whole[place % len(whole)] for place in range(begin, end)]


@dataclass
class MemoryPairs:
    pairs: Sequence[tuple[np.ndarray, np.ndarray]]
    weight: float = 1.0
    name: str = "pairs"

    @property
    def documents(self) -> int:
        return len(self.pairs)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index]


def pairs(count: int, seed: int = 0) -> MemoryPairs:
    """Pairs of up to 39 and 19 tokens."""
    numbers = np.random.default_rng(seed)
    lengths = numbers.integers(1, (40, 20), (count, 2))
    return MemoryPairs(
        [
            (np.full(source, 3 + number % 40, np.int32), np.full(target, 3 + number % 40, np.int32))
            for number, (source, target) in enumerate(lengths)
        ]
    )


def documents(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    numbers = np.random.default_rng(seed)
    return [numbers.integers(3, 3 + WORDS, length).astype(np.int32) for length in lengths]


def mixed(tokens: int, median: float = 60.0, seed: int = 0) -> MemoryStream:
    """Documents with lengths that are log-normal, as on the web: many short ones, few that are much longer than a window."""
    numbers = np.random.default_rng(seed)
    lengths = (numbers.lognormal(np.log(median), 1.2, 4 * int(tokens / median)) + 1).astype(int)
    return MemoryStream(documents([int(length) for length in lengths[lengths.cumsum() < tokens]], seed))


def objective(name: str, **fields: Any) -> Any:
    return TypeAdapter(AnyObjective).validate_python({"name": name, **fields})


SEPARATE = small_pair("t5gemma-b-b")
MERGED = small_pair("t5gemma2-270m-270m")
DECODER: dict[str, Any] = {
    "assembly": "decoder_only",
    "encoder": None,
    "decoder": {"layer": {"order": ["self_attention", "feed_forward"], "branches": {"cross_attention": None}}},
}
ALONE = small_pair("t5gemma-b-b", **DECODER)
ENCODER = small_pair("t5gemma-b-b", assembly="encoder_only", decoder=None, head={"tie": "encoder"})


TOKENIZER = Tokenizer(models.WordLevel({f"word{number}": number for number in range(3 + WORDS)}, "word0"))
"""Of the ids that are in documents. Those above are spare."""


def batches(spec: pairform.ModelSpec, objective: Any, streams: Sequence[Any] | Any, **options: Any) -> Batches:
    streams = streams if isinstance(streams, list) else [streams]
    window = objective.source + objective.target if objective.name == "pairs" else objective.window
    options = {"batch": 8 * window, "micro": 2, "seed": 0} | options
    return Batches(spec, objective, streams, TOKENIZER, **options)


def examples(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """The examples in a batch, read from its tensors: the source's tokens, and the labels that belong to them."""
    found = []
    for micro in batch.micro:
        inputs = micro.inputs
        sources, targets, labels = inputs["input_ids"], inputs["attention_mask"].long(), inputs["labels"]
        of_labels = targets if labels.shape == sources.shape and "decoder_segment_ids" not in inputs else (labels >= 0).long()
        segments = inputs.get("segment_ids", targets), inputs.get("decoder_segment_ids", inputs.get("segment_ids", of_labels))
        for row in range(len(sources)):
            numbers = sorted({*segments[0][row].tolist()} - {0})
            found += [
                (sources[row][segments[0][row] == number].tolist(), labels[row][segments[1][row] == number].tolist())
                for number in numbers
            ]
    return found


def rows(batch: Batch) -> list[list[tuple[str, list[int]]]]:
    """Each row of a batch without its padding, in any order."""
    found = []
    for micro in batch.micro:
        inputs: dict[str, Tensor] = micro.inputs
        for row in range(len(inputs["input_ids"])):
            real = inputs["attention_mask"][row]
            segments = inputs.get("segment_ids", inputs["attention_mask"])[row]
            labels = inputs["labels"][row]
            parts = [inputs["input_ids"][row][real].tolist(), segments[real].long().tolist(), labels[labels >= 0].tolist()]
            found.append([(name, part) for name, part in zip(("ids", "segments", "labels"), parts, strict=True)])
    return sorted(found)
