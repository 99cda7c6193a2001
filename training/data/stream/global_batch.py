"""The batches of an adaptation.

A batch is a function of the seed and the step: nothing else is remembered, so that a run resumes at any step, and every process
finds its own rows without asking others.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError, shorten
from pairform.training.data.batches import EXAMPLES, Ids, generator
from pairform.training.data.encoder_tokens import EncoderTokens
from pairform.training.data.marks import marks_of
from pairform.training.data.objectives import AnyObjective, SequencePairs
from pairform.training.data.stream.layout import Layout, check_objective
from pairform.training.data.stream.order import Epochs, Mixture
from pairform.training.data.stream.packing import Row, by_length, grouped, passes
from pairform.training.data.stream.readers import PairReader, Reader, WindowReader
from pairform.training.data.stream.windows import PairStream, TextStream, Windows
from pairform.training.data.tokenizer_files import Tokenizer
from pairform.training.data.tokens import open_tokens


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    inputs: the model's arguments, among them `labels`.
    rows:   the examples in each row.
    labels: the number of labels that count.
    tokens: source and target tokens.
    padded: the same with padding.
    """

    inputs: dict[str, Tensor]
    rows: Sequence[Row]
    labels: int
    tokens: int
    padded: int


@dataclass(frozen=True)
class Batch:
    """A process's part of the batch of a step.

    micro:    its forward passes, equally many on every process.
    labels:   the labels that count in the global batch, all processes together: the divisor of the loss.
    tokens:   source and target tokens of the global batch.
    examples: documents, or parts of documents, in the global batch.
    dropped:  tokens of its windows in texts too short for an example.
    """

    micro: list[MicroBatch]
    labels: int
    tokens: int
    examples: int
    dropped: int


class Batches:
    """The batches of a run.

    Args:
        spec: The model.
        objective: What it learns.
        streams: The sources of the data: of pairs for `SequencePairs`, else of text.
        tokenizer: Whose tokens they are; None for bytes, which get the lowest ids without a special meaning.
        batch: Source and target tokens of a global batch. What an objective adds, such as sentinels, is not counted.
        micro: Most rows of one forward pass on one process. Their examples may be packed into fewer, longer rows, or split into
            several forward passes, if that leaves less padding.
        seed: Of the order of the data, and of all that objectives draw.
        join: Read a window as one text, with end tokens between its documents, instead of each document apart.
        bos: Begin each document with the model's bos token.
        encoder_tokenizer: Of an encoder that has its own, in which it gets its sources. `tokenizer` is then the decoder's.

    Attributes:
        rows: rows of the global batch: one window each, or as many pairs as are as long on average.
        draws: windows, or pairs, of the global batch.
        epoch: windows, or pairs, of all sources.

    Raises:
        SpecError: they do not fit together.
    """

    def __init__(
        self,
        spec: ModelSpec,
        objective: AnyObjective,
        streams: Sequence[TextStream | PairStream],
        tokenizer: Tokenizer | None,
        *,
        batch: int,
        micro: int,
        seed: int,
        join: bool = False,
        bos: bool = False,
        encoder_tokenizer: Tokenizer | None = None,
    ) -> None:
        row = objective.window
        problems = [*check_objective(objective, spec), *check_streams(objective, streams)]
        if batch < row:
            problems.append(Problem("batch.tokens", f"{batch:,}", f"at least one row: {row:,} tokens"))
        if bos and (join or spec.tokens_of(next(iter(spec.stacks))).bos is None):
            found = "bos with joined documents" if join else "no tokens.bos in the model"
            problems.append(Problem("data.bos", found, "documents apart, and a bos token in the model"))
        if encoder_tokenizer is not None and (bos or spec.assembly != "encoder_decoder"):
            found = "data.bos" if bos else f"a model of the assembly {spec.assembly}"
            problems.append(Problem("encoder_tokenizer", found, "an encoder-decoder, whose tokenizer begins its sources"))
        if problems:
            raise SpecError(problems)
        self.micro, self.seed = micro, seed
        ids = Ids.of(spec, None if encoder_tokenizer is None else "decoder")
        tokens = open_tokens(ids, tokenizer)
        marks = marks_of(objective, ids, tokens)
        encoder = None if encoder_tokenizer is None else EncoderTokens.of(spec, tokens, encoder_tokenizer, objective, marks)
        self.layout = Layout.of(spec, ids, bos)
        self.mixture = Mixture([stream.weight for stream in streams], seed)
        self.rows = self.draws = batch // row
        self.readers: list[Reader] = []
        self.epoch, lengths = 0, []
        for number, stream in enumerate(streams):
            if isinstance(objective, SequencePairs):
                assert isinstance(stream, PairStream), "checked"
                epochs = Epochs(stream.documents, seed, number)
                self.epoch += epochs.count
                reader = PairReader(stream, epochs, objective, marks, self.layout, tokens, encoder)
                lengths.append(reader.mean_tokens())
                self.readers.append(reader)
            else:
                assert isinstance(stream, TextStream), "checked"
                windows = Windows(stream, objective.window, seed, number)
                self.epoch += windows.epochs.count
                self.readers.append(WindowReader(windows, objective, marks, self.layout, tokens, join, encoder))
        if lengths:
            mean = sum(length * share for length, share in zip(lengths, self.mixture.shares, strict=True))
            self.draws = max(self.rows, round(batch / max(mean, 1)))

    def check_world(self, world: int) -> Iterator[Problem]:
        """Why so many processes cannot share the rows of a batch."""
        if self.rows % world:
            found, expected = f"{self.rows} rows for {world} processes", "a number of rows that they share equally"
            yield Problem("batch.tokens", found, expected)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The part of process `rank` of the batch of a step, from 0. The parts of all processes together are the same rows for
        every number of processes, and the same forward passes if `micro` divides the rows of a process.

        Raises:
            SpecError: the rows cannot be shared, or no text of the batch is long enough.
        """
        problems = [*self.check_world(world)]
        if problems:
            raise SpecError(problems)
        rows, dropped = self.read(step)
        pieces = [piece for row in rows for piece in row]
        labels = sum(map(self.layout.labels, pieces))
        if not labels:
            found = f"no label in step {step}: its documents are too short, {dropped:,} tokens in all"
            raise SpecError(Problem("data", found, "documents of two tokens or more"))
        ordered = by_length(rows)
        shares = passes([[*self.share(ordered, each, world)] for each in range(world)])
        micro = [self.micro_batch(some) for some in shares[rank]]
        return Batch(micro, labels, sum(map(self.layout.tokens, pieces)), len(pieces), dropped)

    def read(self, step: int) -> tuple[list[Row], int]:
        """The rows of the global batch, and the number of tokens in no example."""
        numbers = generator(EXAMPLES, self.seed, step)
        sources, draws = self.mixture.examples(step * self.draws, self.draws)
        rows, dropped = [], 0
        for source, draw in zip(sources.tolist(), draws.tolist(), strict=True):
            row, lost = self.readers[source].read(draw, numbers)
            rows.append(row)
            dropped += lost
        if self.draws > self.rows:
            rows = grouped([piece for row in rows for piece in row], self.rows)
        return rows, dropped

    def share(self, rows: Sequence[Row], rank: int, world: int) -> Iterator[Sequence[Row]]:
        """The rows of a process, `micro` at a time. Rows of similar lengths are on all processes at the same time."""
        left = self.rows // world
        begin = 0
        while left:
            some = min(self.micro, left)
            yield rows[begin + rank * some : begin + (rank + 1) * some]
            begin, left = begin + world * some, left - some

    def micro_batch(self, rows: Sequence[Row]) -> MicroBatch:
        """The tensors of some rows, with their numbers of labels and tokens."""
        inputs = self.layout.tensors(rows)
        pieces = [piece for row in rows for piece in row]
        padded = inputs["input_ids"].numel() + (inputs["labels"].numel() if self.layout.pairs else 0)
        return MicroBatch(inputs, rows, sum(map(self.layout.labels, pieces)), sum(map(self.layout.tokens, pieces)), padded)

    def batches(self, first: int, last: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of steps `first` to `last`, each made by a thread while the one before is used."""
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(self.batch, first, rank, world) if first < last else None
            for step in range(first, last):
                assert following is not None
                made = following.result()
                following = thread.submit(self.batch, step + 1, rank, world) if step + 1 < last else None
                yield made


def check_streams(objective: AnyObjective, streams: Sequence[TextStream | PairStream]) -> Iterator[Problem]:
    """Why sources cannot be read with an objective."""
    pairs = isinstance(objective, SequencePairs)
    if not streams:
        yield Problem("data.shards", "no source", "at least one")
    for stream in streams:
        where = f"source {shorten(stream.name)}"
        if isinstance(stream, PairStream) != pairs:
            found, expected = ("text", "pairs") if pairs else ("pairs", "text")
            yield Problem(where, found, f"{expected} for the objective {objective.name}")
        elif (stream.documents if isinstance(stream, PairStream) else stream.length) < (1 if pairs else 2):
            yield Problem(where, "no data", "at least one pair" if pairs else "at least two tokens")
