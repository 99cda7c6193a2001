"""The training loop: a model with new weights, trained and measured."""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.modeling.model import Model
from pairform.training.costs import costs, memory_in_use, peak_memory, writing_seconds
from pairform.training.data.batches import Example, Examples, collate
from pairform.training.metrics import Log
from pairform.training.recipe import OptimizerSpec, ScheduleSpec, TrainingSpec


class DivergedError(Exception):
    """The loss is no number any more."""


@dataclass
class Clock:
    """Seconds of training, and the tokens read and written in them; validation stops it."""

    seconds: float = 0.0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.since


def train(
    spec: Mapping[str, Any], settings: TrainingSpec, seed: int, examples: Examples, *, latency: bool, log: Log
) -> dict[str, Any]:
    """Build a model of `spec` with new weights, train and measure it; the measured numbers by name.

    Equal arguments give equal losses and accuracies. `latency` measures the seconds of decoding too. Each line of metrics
    goes to `log`. A loss that is not finite raises `DivergedError`.
    """
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(seed)
    began = time.perf_counter()
    held_out = examples.validation()
    before = memory_in_use(settings.device)
    model = build(dict(spec), device=settings.device, seed=seed).train()
    optimizer = make_optimizer(model, settings.optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(settings.schedule, step, settings.steps))
    clock = Clock()
    for step in range(settings.steps):
        clock.start()
        batch = examples.train(seed, step, settings.batch)
        told: dict[str, Tensor] = {}
        loss, norm = update(model, batch, optimizer, settings, told)
        learning_rate = schedule.get_last_lr()[0]
        schedule.step()
        clock.tokens += sum(len(source) + len(target) for source, target in batch)
        done = step + 1
        logs = done % settings.log_every == 0 or done == settings.steps
        value = loss.item() if logs else 0.0
        clock.stop()
        if logs:
            if not math.isfinite(value):
                raise DivergedError(f"the loss is {value} at step {done}")
            line = {"step": done, "split": "train", "loss": value, "tokens": clock.tokens, "seconds": clock.seconds}
            line |= {"learning_rate": learning_rate, "gradient_norm": norm.item()}
            log(line | {name: value.item() for name, value in told.items()})
        if settings.evaluate_every is not None and done % settings.evaluate_every == 0 and done < settings.steps:
            log(validation_line(model, held_out, settings, done, clock))
    final = validation_line(model, held_out, settings, settings.steps, clock)
    log(final)
    measured: dict[str, Any] = {name: final[name] for name in ("loss", "accuracy", "exact_match")}
    measured |= costs(model.spec, examples.lengths, settings.dtype)
    peak = peak_memory(settings.device)
    measured |= {
        "tokens_per_second": clock.tokens / clock.seconds if clock.seconds else None,
        "peak_bytes": None if before is None or peak is None else max(0, peak - before),
    }
    if latency:
        with computing_in(settings):
            measured["latency"] = writing_seconds(model, held_out[0][0], examples.lengths)
    return measured | {"seconds": time.perf_counter() - began}


def update(
    model: Model,
    batch: list[Example],
    optimizer: torch.optim.Optimizer,
    settings: TrainingSpec,
    told: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of the optimiser; the loss of the targets' tokens before it, as validation measures it, and the norm of the
    gradients before they are clipped.

    Blocks such as a mixture of experts add auxiliary losses, which are trained on too: their sum is put into `told`.
    """
    output = forward(model, batch, settings)["output"]
    optimizer.zero_grad()
    output.loss.backward()
    loss = output.loss.detach()
    if output.auxiliary_loss is not None:
        auxiliary = output.auxiliary_loss.detach()
        loss = loss - auxiliary
        if told is not None:
            told["auxiliary_loss"] = auxiliary
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if settings.clip is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), settings.clip, norm)
    optimizer.step()
    return loss, norm


def forward(model: Model, batch: list[Example], settings: TrainingSpec) -> dict[str, Any]:
    """The loss of a batch, its output, and the labels that it was compared with."""
    inputs = {name: tensor.to(settings.device) for name, tensor in collate(batch, model.spec).items()}
    with computing_in(settings):
        output = model(**inputs)
        return {"loss": output.loss, "output": output, "labels": inputs["labels"]}


def computing_in(settings: TrainingSpec) -> contextlib.AbstractContextManager[None]:
    """The dtype in which a trial computes: autocast, or none."""
    if settings.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, torch.bfloat16)


@torch.no_grad()
def validation_line(model: Model, held_out: list[Example], settings: TrainingSpec, step: int, clock: Clock) -> dict[str, Any]:
    """Mean loss and accuracy over the targets' tokens, and the part of targets that greedy decoding writes without a fault.

    The last is counted without decoding: where each token is the likeliest behind the right ones, greedy decoding writes them.
    """
    model.eval()
    loss, right, exact, tokens = 0.0, 0, 0, 0
    for begin in range(0, len(held_out), settings.batch):
        ran = forward(model, held_out[begin : begin + settings.batch], settings)
        guesses, labels = ran["output"].logits.argmax(-1), ran["labels"]
        if model.spec.encoder is None:  # each token foretells the next
            guesses, labels = guesses[:, :-1], labels[:, 1:]
        counts = labels >= 0
        hits = guesses == labels  # an ignored label is no id
        many = int(counts.sum())
        loss += ran["loss"].item() * many
        right += int(hits.sum())
        exact += int((hits | ~counts).all(1).sum())
        tokens += many
    model.train()
    measured = {"loss": loss / tokens, "accuracy": right / tokens, "exact_match": exact / len(held_out)}
    if not math.isfinite(measured["loss"]):
        raise DivergedError(f"the validation loss is {measured['loss']} after step {step}")
    return {"step": step, "split": "valid", **measured, "tokens": clock.tokens, "seconds": clock.seconds}


def make_optimizer(model: Model, spec: OptimizerSpec) -> torch.optim.Optimizer:
    if spec.name == "sgd":
        return torch.optim.SGD(model.parameters(), spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(model.parameters(), spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay)


def rate(schedule: ScheduleSpec, step: int, steps: int) -> float:
    """The learning rate of step 0, 1, ... as a part of the highest."""
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    if schedule.name == "constant":
        return 1.0
    part = min(1.0, (step - schedule.warmup) / max(1, steps - schedule.warmup))
    height = (1 + math.cos(math.pi * part)) / 2 if schedule.name == "cosine" else 1 - part
    return schedule.final + (1 - schedule.final) * height
