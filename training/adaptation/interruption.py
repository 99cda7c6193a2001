"""Ending a run at a signal, after a checkpoint."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from pairform.training.parallel import World

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO = 5.0
"""Seconds after a signal in which another is taken for the same one: a terminal or Slurm sends it to every process, and
torchrun passes on what it receives."""
received: set[int] = set()
"""Signals that this process has received while it ran `adapt`."""


class Interruption:
    """Lets training end after a step on SIGINT, SIGTERM or SIGHUP, unless they are ignored. A later signal ends it at once.

    Before training, signals have their usual effect. After it, SIGTERM has none in one of several processes: torchrun sends it
    to all others when one has failed, and they would end before they have reported the error.
    """

    def __init__(self) -> None:
        self.asked: float | None = None
        self.begun = self.ended = False
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if (before := signal.getsignal(number)) != signal.SIG_IGN:
                    self.handlers[number] = before
                    signal.signal(number, self.ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The block that ends when it is told that this `stops`."""
        self.begun = True
        try:
            yield
        finally:
            self.ended = True

    def ask(self, number: int, frame: FrameType | None) -> None:
        received.add(number)
        several, now = "RANK" in os.environ, time.monotonic()
        if self.ended and several and number == signal.SIGTERM:
            return
        if self.begun and not self.ended and (self.asked is None or (several and now - self.asked < ECHO)):
            self.asked = self.asked or now
            return
        self.__exit__()
        signal.raise_signal(number)

    def stops(self, world: World) -> bool:
        """Whether some process was asked to end: the same in all of them."""
        return bool(world.sum(torch.tensor(int(self.asked is not None))))
