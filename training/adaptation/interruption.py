"""Signals to a run: it ends after a checkpoint, or writes one and goes on."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch

from pairform.training.parallel import World

ECHO = 5.0
"""Seconds after a signal in which another is taken for the same one: a terminal or Slurm sends it to every process, and
torchrun passes on what it receives."""
received: set[int] = set()
"""Signals to end that this process has received while it ran `adapt`."""


@dataclass(frozen=True)
class Signals:
    """What a run does at a signal, after the step in progress, unless the signal is ignored.

    stop: ends after a checkpoint. A later such signal has the effect that it had before the run.
    save: writes a checkpoint, and goes on.
    """

    stop: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    save: tuple[int, ...] = ()


ENDING = Signals()
"""Signals of a terminal and of a shutdown."""


class Asked(NamedTuple):
    """What signals have asked of a run."""

    stop: bool
    save: bool


class Interruption:
    """Notes the signals that a run gets while it trains.

    Before training, signals have their usual effect. After it, SIGTERM has none in one of several processes: torchrun sends it
    to all others when one has failed, and they would end before they have reported the error.
    """

    def __init__(self, signals: Signals = ENDING) -> None:
        self.signals = signals
        self.first: float | None = None
        self.saves = self.saved = 0
        self.begun = self.ended = False
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (*self.signals.stop, *self.signals.save):
                if (before := signal.getsignal(number)) != signal.SIG_IGN:
                    self.handlers[number] = before
                    signal.signal(number, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The block that does what it is `asked`."""
        self.begun = True
        try:
            yield
        finally:
            self.ended = True

    def note(self, number: int, frame: FrameType | None) -> None:
        several, now = "RANK" in os.environ, time.monotonic()
        trains = self.begun and not self.ended
        if self.ended and several and number == signal.SIGTERM:
            return
        if trains and number in self.signals.save:
            self.saves += 1
            return
        received.add(number)
        if trains and (self.first is None or (several and now - self.first < ECHO)):
            self.first = self.first or now
        else:
            self.__exit__()
            signal.raise_signal(number)

    def asked(self, world: World) -> Asked:
        """Whether some process was asked to stop, and whether one was to save since the last call: the same in all of them."""
        saves = self.saves
        counted = world.sum(torch.tensor([int(self.first is not None), saves - self.saved])).tolist()
        self.saved = saves
        return Asked(counted[0] > 0, counted[1] > 0)
