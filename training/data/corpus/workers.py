"""Processes that encode batches. They end when the process that started them ends, however it ends."""

import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pairform.registry import InputError, PairformError, Problem, SpecError
from pairform.training.data.corpus.documents import Batch, Mark
from pairform.training.data.corpus.encoding import Encoded, Encoder
from pairform.training.data.corpus.setup import Setup

ROOM = 2 << 30
"""Bytes that a worker with a chat template may allocate."""
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pairform.training.data.corpus.workers import work; work(*sys.argv[2:])"
)
"""Program of a worker. Python starts it without the current folder in its path, which may be a stranger's."""
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


class Worker:
    """One process, and this end of its pipes."""

    def __init__(self) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.out, self.into = Connection(ours_in, writable=False), Connection(ours_out, readable=False)
        root = str(Path(sys.modules["pairform"].__path__[0]).parent)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the main process, which ends it
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, root, str(theirs_in), str(theirs_out)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs_in)
            os.close(theirs_out)

    def send(self, value: object) -> None:
        try:
            self.into.send(value)
        except OSError:
            raise self.ended() from None

    def result(self) -> Encoded:
        try:
            found: Any = self.out.recv()
        except (EOFError, OSError):
            raise self.ended() from None
        if isinstance(found, Encoded):
            return found
        raise SpecError(found)

    def ended(self) -> InputError:
        self.stop()
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        remedy = "If memory ran out, use fewer --jobs. The same command continues."
        return InputError(Problem("--jobs", f"a process that ended with {how}", "one that encodes documents", remedy))

    def stop(self) -> None:
        """End the process: its pipe is closed, which it notices once it has finished its batch."""
        self.into.close()
        self.out.close()
        self.process.terminate()
        self.process.wait()


def work(reader: str, writer: str) -> None:
    """A worker's life: it receives a setup and then batches, and answers each with what it encodes to, or with problems."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread each: --jobs says how many
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    into, out = Connection(int(reader), writable=False), Connection(int(writer), readable=False)
    try:
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
    except (EOFError, BrokenPipeError):  # the main process has ended
        return


def limit_memory() -> None:
    """Let this process allocate `ROOM` bytes more than it has: a template that takes more gets a `MemoryError`."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux
        return
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
