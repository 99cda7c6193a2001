"""The training loop, of studies' trials and of adaptation: optimiser steps over global batches, with evaluation between."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pairform.assemblies.modeling.model import Model
from pairform.training.costs.throughput import Throughput
from pairform.training.data.batches import generator
from pairform.training.data.stream import Batch
from pairform.training.metrics import Log
from pairform.training.optimization.averaging import MovingAverage
from pairform.training.optimization.optimizers import Optimizers
from pairform.training.optimization.phases import PhaseSpec, phase_of, set_trained
from pairform.training.optimization.schedule import rate
from pairform.training.optimization.spikes import DivergedError, Spikes
from pairform.training.parallel import ALONE, World
from pairform.training.settings import ScheduleSpec
from pairform.training.step import Computation, gradients, update

DROPOUT = 8
"""First number of the seeds of dropout, which no stream of data has."""


@dataclass
class Clock:
    """Seconds of training, without validation, and the source and target tokens of the batches so far."""

    seconds: float = 0.0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.since


@dataclass
class Loop:
    """Training of a model.

    batches:        this process's parts of the batches from one step to another, counted from 0. They depend on the step alone.
    log:            receives a line of metrics for every `log_every` steps and for the last.
    clip:           norm to which gradients are clipped; None: they are not.
    phases, frozen: which parameters train. Those that the model freezes itself, such as a vision tower's, never do.
    average:        a moving average of the weights, updated with them; None: there is none.
    spikes:         decides which updates are skipped; None: no one is.
    throughput:     adds figures of speed to the lines; None: there are none.
    seed:           of the random numbers of dropout, which depend on it, the step and the process; None: torch's own state.
    evaluate:       evaluates the model after a number of steps: every `evaluate_every`, but not after the last.
    after:          called after each step with the number of steps.
    """

    model: Model
    optimizers: Optimizers
    steps: int
    schedule: ScheduleSpec
    batches: Callable[[int, int], Iterable[Batch]]
    log: Log
    clock: Clock = field(default_factory=Clock)
    world: World = ALONE
    computation: Computation = field(default_factory=Computation)
    clip: float | None = None
    phases: Sequence[PhaseSpec] = ()
    frozen: Sequence[str] = ()
    average: MovingAverage | None = None
    spikes: Spikes | None = None
    throughput: Throughput | None = None
    seed: int | None = None
    log_every: int = 1
    evaluate_every: int | None = None
    evaluate: Callable[[int], object] = lambda done: None
    after: Callable[[int], object] = lambda done: None

    def run(self, begin: int = 0) -> None:
        """Train from step `begin` to the last.

        Raises:
            DivergedError: the loss or a gradient is not finite, or too many updates in a row were skipped.
        """
        batches = iter(self.batches(begin, self.steps))
        never = (*self.frozen, *(name for name, parameter in self.model.named_parameters() if not parameter.requires_grad))
        for step in range(begin, self.steps):
            if self.phases or self.frozen:
                phase = phase_of(self.phases, step)
                if step == begin or phase is not phase_of(self.phases, step - 1):
                    set_trained(self.model, phase, never)
            self.clock.start()
            line = self.step(step, next(batches))
            self.clock.stop()
            done = step + 1
            if line is not None:
                line["seconds"] = self.clock.seconds
                if self.throughput is not None:
                    line |= self.throughput.since(self.clock.tokens, self.clock.seconds)
                self.log({"step": done, "split": "train"} | line)
            if self.evaluate_every is not None and done % self.evaluate_every == 0 and done < self.steps:
                self.evaluate(done)
            self.after(done)

    def step(self, step: int, batch: Batch) -> dict[str, Any] | None:
        """One step, counted from 0. Its line of metrics, if it gets one; `DivergedError` if the loss is not finite."""
        fraction = rate(self.schedule, step, self.steps)
        self.optimizers.set_rate(fraction)
        self.optimizers.zero_grad()
        if self.seed is not None:
            torch.manual_seed(generator(DROPOUT, self.seed, step, self.world.rank).integers(1 << 63).item())
        measured = gradients(self.model, self.optimizers.parameters, batch, self.computation, self.world)
        self.clock.tokens += batch.tokens
        skipped = self.spikes is not None and self.spikes.skips(measured.loss.item(), measured.norm.item())
        if not skipped:
            update(self.optimizers, measured, self.clip)
            if self.average is not None:
                self.average.update(self.model)
        if (step + 1) % self.log_every and step + 1 < self.steps:
            return None
        loss = measured.loss.item()  # within the timed part: it waits for an accelerator to finish the step
        extra = {name: value.item() for name, value in measured.extra.items()}
        line = {"loss": loss, "tokens": self.clock.tokens, "learning_rate": fraction * self.optimizers.rates[0]}
        line |= {"gradient_norm": measured.norm.item()} | extra
        for name in () if self.spikes is not None else ("loss", "gradient_norm", *extra):
            if not math.isfinite(line[name]):  # before a checkpoint of weights that are not finite is written
                raise DivergedError(f"the {name.replace('_', ' ')} is {line[name]} at step {step + 1}")
        return line | {"skipped": True} if skipped else line
