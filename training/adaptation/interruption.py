"""Signals to a run: it ends after a checkpoint, or writes one and goes on."""

import signal
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from pairform.training.parallel import World


@dataclass(frozen=True)
class Signals:
    """What a run does at a signal, after the step in progress.

    stop: ends after a checkpoint. A second such signal has the effect that it had before the run.
    save: writes a checkpoint, and goes on.
    """

    stop: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    save: tuple[int, ...] = ()


ENDING = Signals()
"""Signals of a terminal and of a shutdown."""


class Interruption:
    """Notes the signals that a run gets. Outside the block, and in other threads than the main one, they act as before."""

    def __init__(self, world: World, signals: Signals) -> None:
        self.world = world
        self.signals = signals
        self.stop = False
        self.saves = self.saved = 0
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (*self.signals.stop, *self.signals.save):
                self.handlers[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if number in self.signals.save:
            self.saves += 1
            return
        self.stop = True
        for each in self.signals.stop:
            signal.signal(each, self.handlers[each])

    def asked(self) -> tuple[bool, bool]:
        """Whether some process was asked to stop, and whether to save since the last call: the same in all of them."""
        saves = self.saves
        counted = self.world.sum(torch.tensor([int(self.stop), saves - self.saved])).tolist()
        self.saved = saves
        return counted[0] > 0, counted[1] > 0
