"""Ending a run at a signal, after a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any

import torch

from pairform.training.parallel import World


class Interruption:
    """Lets a run end after a step on SIGINT or SIGTERM. A second signal ends it at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked = False
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()

    def stops(self) -> bool:
        """Whether some process was asked to end: the same in all of them."""
        return bool(self.world.sum(torch.tensor(int(self.asked))))
