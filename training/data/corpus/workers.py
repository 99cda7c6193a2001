"""Processes that encode batches."""

import os
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection

from pairform.assemblies.preprocessing.worker_process import WorkerProcess, limit_memory
from pairform.registry import PairformError, SpecError
from pairform.training.data.corpus.documents import Batch, Mark
from pairform.training.data.corpus.encoding import Encoded, Encoder
from pairform.training.data.corpus.setup import Setup

Marked = tuple[Encoded, Mark]


class Workers:
    """As many processes as `count`, each with an encoder of its own; with `count` 0, this process encodes."""

    def __init__(self, setup: Setup, count: int) -> None:
        self.encoder = Encoder(setup) if count == 0 else None
        self.processes: list[Worker] = []
        try:
            for _ in range(count):
                self.processes.append(Worker())
            for process in self.processes:  # which start at the same time
                process.send(setup)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            process.stop()

    def encoded(self, batches: Iterator[tuple[Batch, Mark]]) -> Iterator[Marked]:
        """The batches, encoded, in their order, each with its mark. Each worker holds one at a time: memory stays bounded.

        Raises:
            SpecError: the error of the first batch that cannot be encoded, after those before it.
            InputError: a worker ended.
        """
        if self.encoder is not None:
            yield from ((self.encoder.encode(batch), mark) for batch, mark in batches)
            return
        waiting: deque[tuple[Worker, Mark]] = deque()
        free = deque(self.processes)
        for batch, mark in batches:
            done = None
            if not free:
                worker, earlier = waiting.popleft()
                done = (worker.result(), earlier)
                free.append(worker)
            worker = free.popleft()
            worker.send(batch)
            waiting.append((worker, mark))
            if done is not None:
                yield done
        for worker, mark in waiting:
            yield worker.result(), mark


class Worker(WorkerProcess):
    """A process that encodes batches."""

    def __init__(self) -> None:
        remedy = "If memory ran out, use fewer --jobs. The same command continues."
        super().__init__(work, "--jobs", "one that encodes documents", remedy)

    def result(self) -> Encoded:
        found = self.receive()
        if isinstance(found, Encoded):
            return found
        raise SpecError(found)


def work(into: Connection, out: Connection) -> None:
    """A worker's life: it receives a setup and then batches, and answers each with what it encodes to, or with problems."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread each: --jobs says how many
    setup = into.recv()
    if setup.template is not None:
        limit_memory()
    encoder: Encoder | None = None
    while True:
        batch = into.recv()
        try:
            encoder = encoder or Encoder(setup)
            out.send(encoder.encode(batch))
        except PairformError as error:
            out.send(list(error.problems))
