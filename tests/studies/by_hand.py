"""A trial trained by hand: torch's own optimisers and schedules, the loss out of logits, examples validated one by one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import lr_scheduler

import pairform
from pairform.experiments.execution.trial import train
from pairform.experiments.results.records import Trial
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.training.data.batches import Example, Examples
from pairform.training.settings import ScheduleSpec, TrainingSpec
from tests.studies.small_study import write_study

BOS, PAD, IGNORED = 2, 0, -100


def planned(folder: Path, patch: dict[str, Any], variant: dict[str, Any] | None = None) -> tuple[Trial, Examples]:
    """The first trial of a study of one variant, and what it learns from."""
    file = write_study(folder, patch)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"variants": {"one": variant or {}}}))
    study = read_study(file)
    contents = gather(study, folder)
    trial = plan_trials(study, folder, contents)[0]
    return trial, contents.open(pairform.load_spec(dict(trial.spec)))


def trained(trial: Trial, examples: Examples, *, latency: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a trial logs, and its result, in this process."""
    lines: list[dict[str, Any]] = []
    with kept_settings():
        return lines, train(trial, examples, latency, lines.append)


@contextmanager
def kept_settings() -> Iterator[None]:
    """Put back the settings of torch that a trial changes in its process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def schedule(optimizer: torch.optim.Optimizer, spec: ScheduleSpec, steps: int) -> lr_scheduler.LRScheduler:
    """torch's own, one after the other."""
    rest = steps - spec.warmup
    main: dict[str, Any] = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, spec.final, rest),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, rest, spec.final * optimizer.defaults["lr"]),
    }
    if not spec.warmup:
        found: lr_scheduler.LRScheduler = main[spec.name]()
        return found
    warmup = lr_scheduler.LinearLR(optimizer, 1 / (spec.warmup + 1), 1.0, spec.warmup)
    return lr_scheduler.SequentialLR(optimizer, [warmup, main[spec.name]()], [spec.warmup])


def scores(model: pairform.Model, batch: list[Example]) -> tuple[Tensor, Tensor]:
    """Logits, and the token that each is to give the most weight; -100 where none is."""
    targets = [target for _, target in batch]
    if model.encoder is None:
        rows = [[*source, BOS, *target] for source, target in batch]
        wanted = [[IGNORED] * len(source) + target + [IGNORED] for source, target in batch]
        ids = filled(rows, PAD)
        logits = model(ids, filled([[1] * len(row) for row in rows], 0)).logits
    else:
        sources = [source for source, _ in batch]
        wanted = targets
        begun = filled([[BOS, *target[:-1]] for target in targets], PAD)
        mask = filled([[1] * len(source) for source in sources], 0)
        logits = model(filled(sources, PAD), mask, begun).logits
    assert logits is not None
    return logits, filled(wanted, IGNORED)


def filled(rows: list[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def validated(model: pairform.Model, examples: list[Example]) -> dict[str, float]:
    """Loss and accuracy over all tokens, and the part of targets that the model writes itself, without dropout."""
    mode, losses, hits, written = model.training, [], [], 0
    model.eval()
    with torch.no_grad():
        for source, target in examples:
            logits, wanted = scores(model, [(source, target)])
            logits, wanted = logits[wanted >= 0], wanted[wanted >= 0]
            losses += [-row.double().log_softmax(0)[label] for row, label in zip(logits, wanted, strict=True)]
            hits += (logits.argmax(-1) == wanted).tolist()
            prompt = source if model.encoder is not None else [*source, BOS]
            made = model.generate(torch.tensor([prompt]), max_new_tokens=len(target), eos_token_id=()).tolist()[0]
            written += made[-len(target) :] == target
    model.train(mode)
    return {
        "loss": torch.stack(losses).mean().item(),
        "accuracy": sum(hits) / len(hits),
        "exact_match": written / len(examples),
    }


def trained_by_hand(
    trial: Trial, examples: Examples, make: Any, clip: float | None, settings: TrainingSpec
) -> list[dict[str, Any]]:
    """The lines that a trial logs, with `make(parameters)` for its optimiser."""
    torch.manual_seed(trial.seed)
    model = pairform.build(dict(trial.spec), seed=trial.seed).train()
    optimizer = make(model.parameters())
    rates = schedule(optimizer, settings.schedule, settings.steps)
    lines: list[dict[str, Any]] = []
    tokens = 0
    for step in range(settings.steps):
        batch = examples.train(trial.seed, step, settings.batch)
        tokens += sum(len(source) + len(target) for source, target in batch)
        logits, wanted = scores(model, batch)
        loss: Any = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = sum(gradient.double().square().sum() for gradient in gradients) ** 0.5
        if clip is not None:
            for gradient in gradients:
                gradient *= min(1.0, clip / norm)
        line = {"step": step + 1, "split": "train", "loss": loss.item(), "learning_rate": optimizer.param_groups[0]["lr"]}
        lines.append(line | {"gradient_norm": float(norm), "tokens": tokens})
        optimizer.step()
        rates.step()
        if (settings.evaluate_every and (step + 1) % settings.evaluate_every == 0) or step + 1 == settings.steps:
            measured = validated(model, examples.validation())
            lines.append({"step": step + 1, "split": "valid", "tokens": tokens} | measured)
    return lines
