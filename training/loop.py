"""The training loop: optimiser steps over batches of examples, with validation."""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.modeling.model import Model
from pairform.training.costs import costs, memory_in_use, peak_memory, writing_seconds
from pairform.training.data.batches import Example, Examples, collate
from pairform.training.metrics import Log
from pairform.training.recipe import OptimizerSpec, ScheduleSpec, TrainingSpec


class DivergedError(Exception):
    """The loss is not finite."""


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


class Run(Protocol):
    """What is trained: the document of a model's spec, the settings, and the seed of the weights and the order of the data."""

    @property
    def spec(self) -> Mapping[str, Any]: ...
    @property
    def training(self) -> TrainingSpec: ...
    @property
    def seed(self) -> int: ...


def train(run: Run, examples: Examples, latency: bool, log: Log) -> dict[str, Any]:
    """Build a model with new weights, train it and measure it. Equal arguments give equal losses and accuracies.

    Args:
        run: The model, the settings and the seed, such as a study's trial.
        examples: The data.
        latency: Also measure the seconds of generating a target.
        log: Receives each line of metrics.

    Returns:
        Results by name: loss, accuracies, costs, tokens per second, and bytes and seconds taken; None if not measurable here.

    Raises:
        DivergedError: the training or validation loss is not finite.
    """
    settings, seed = run.training, run.seed
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # for dropout; weights and batches are drawn from generators of their own
    torch.manual_seed(seed)
    start = time.perf_counter()
    held_out = examples.validation()
    memory = memory_in_use(settings.device)
    model = build(dict(run.spec), device=settings.device, seed=seed).train()
    clock = Clock()
    fit(model, settings, seed, examples, held_out, clock, log)
    final = validation_line(model, held_out, settings, settings.steps, clock)
    log(final)
    peak = peak_memory(settings.device)
    results: dict[str, Any] = {name: final[name] for name in ("loss", "accuracy", "exact_match")}
    results |= costs(model.spec, examples.lengths, settings.dtype)
    results["tokens_per_second"] = clock.tokens / clock.seconds if clock.seconds else None
    results["peak_bytes"] = None if memory is None or peak is None else max(0, peak - memory)
    if latency:
        with computing_in(settings):
            results["latency"] = writing_seconds(model, held_out[0][0], examples.lengths)
    return results | {"seconds": time.perf_counter() - start}


def fit(
    model: Model, settings: TrainingSpec, seed: int, examples: Examples, held_out: list[Example], clock: Clock, log: Log
) -> None:
    """Train a model for `settings.steps` steps, validating in between.

    The batch of a step depends only on `seed` and the step.
    """
    optimizer = make_optimizer(model, settings.optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(settings.schedule, step, settings.steps))
    for step in range(settings.steps):
        clock.start()
        batch = examples.train(seed, step, settings.batch)
        extra: dict[str, Tensor] = {}
        loss, norm = update(model, batch, optimizer, settings, extra)
        learning_rate = schedule.get_last_lr()[0]
        schedule.step()
        clock.tokens += sum(len(source) + len(target) for source, target in batch)
        done = step + 1
        logs = done % settings.log_every == 0 or done == settings.steps
        value = loss.item() if logs else 0.0  # within the timed part: it waits for an accelerator to finish the step
        clock.stop()
        if logs:
            if not math.isfinite(value):
                raise DivergedError(f"the loss is {value} at step {done}")
            line = {"step": done, "split": "train", "loss": value, "tokens": clock.tokens, "seconds": clock.seconds}
            line |= {"learning_rate": learning_rate, "gradient_norm": norm.item()}
            log(line | {name: value.item() for name, value in extra.items()})
        if settings.evaluate_every is not None and done % settings.evaluate_every == 0 and done < settings.steps:
            log(validation_line(model, held_out, settings, done, clock))


def update(
    model: Model,
    batch: list[Example],
    optimizer: torch.optim.Optimizer,
    settings: TrainingSpec,
    extra: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimiser step.

    Args:
        model: The model.
        batch: The examples.
        optimizer: Its optimiser.
        settings: Device, dtype and clipping.
        extra: Receives `auxiliary_loss`, the sum of the losses that blocks such as a mixture of experts add.

    Returns:
        The loss of the target tokens before the step, without auxiliary losses, comparable with the validation loss; and the
        norm of the gradients before clipping.
    """
    output = forward(model, batch, settings)["output"]
    optimizer.zero_grad()
    output.loss.backward()
    loss = output.loss.detach()
    if output.auxiliary_loss is not None:
        auxiliary = output.auxiliary_loss.detach()
        loss = loss - auxiliary
        if extra is not None:
            extra["auxiliary_loss"] = auxiliary
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if settings.clip is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), settings.clip, norm)
    optimizer.step()
    return loss, norm


def forward(model: Model, batch: list[Example], settings: TrainingSpec) -> dict[str, Any]:
    """The `loss` of a batch, the model's `output`, and the `labels`, `[batch, length]`, that it was compared with."""
    inputs = {name: tensor.to(settings.device) for name, tensor in collate(batch, model.spec).items()}
    with computing_in(settings):
        output = model(**inputs)
        return {"loss": output.loss, "output": output, "labels": inputs["labels"]}


def computing_in(settings: TrainingSpec) -> contextlib.AbstractContextManager[None]:
    """Autocast to the compute dtype."""
    if settings.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, torch.bfloat16)


@torch.no_grad()
def validation_line(model: Model, held_out: list[Example], settings: TrainingSpec, step: int, clock: Clock) -> dict[str, Any]:
    """Mean loss and accuracy over target tokens, and the fraction of targets that greedy decoding would reproduce.

    The last needs no decoding: greedy decoding reproduces a target if each token has the highest probability after the correct
    ones before it.
    """
    model.eval()
    loss, correct, exact, tokens = 0.0, 0, 0, 0
    for begin in range(0, len(held_out), settings.batch):
        result = forward(model, held_out[begin : begin + settings.batch], settings)
        predicted, labels = result["output"].logits.argmax(-1), result["labels"]
        if model.spec.encoder is None:  # each token predicts the next
            predicted, labels = predicted[:, :-1], labels[:, 1:]
        counted = labels >= 0
        hits = predicted == labels  # never at an ignored label, which is no token id
        count = int(counted.sum())
        loss += result["loss"].item() * count
        correct += int(hits.sum())
        exact += int((hits | ~counted).all(1).sum())
        tokens += count
    model.train()
    measures = {"loss": loss / tokens, "accuracy": correct / tokens, "exact_match": exact / len(held_out)}
    if not math.isfinite(measures["loss"]):
        raise DivergedError(f"the validation loss is {measures['loss']} after step {step}")
    return {"step": step, "split": "valid", **measures, "tokens": clock.tokens, "seconds": clock.seconds}


def make_optimizer(model: Model, spec: OptimizerSpec) -> torch.optim.Optimizer:
    if spec.name == "sgd":
        return torch.optim.SGD(model.parameters(), spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(model.parameters(), spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay)


def rate(schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Learning rate of a step, from 0, as a fraction of the peak."""
    if step < schedule.warmup:
        # no step has a rate of 0, and the first one after the warmup has the peak
        return (step + 1) / (schedule.warmup + 1)
    if schedule.name == "constant":
        return 1.0
    progress = min(1.0, (step - schedule.warmup) / max(1, steps - schedule.warmup))
    height = (1 + math.cos(math.pi * progress)) / 2 if schedule.name == "cosine" else 1 - progress
    return schedule.final + (1 - schedule.final) * height
