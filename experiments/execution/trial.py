"""Training of one trial of a study: a model, trained, validated and measured."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.modeling.model import Model
from pairform.experiments.evaluation.computing import computation, validate
from pairform.experiments.evaluation.computing import forward as forward
from pairform.experiments.execution.compilation import compile_layers, uncompiled
from pairform.experiments.study.steps import batch_of
from pairform.experiments.study.steps import update as update
from pairform.training.checkpoints import load_checkpoint, prune, save_checkpoint
from pairform.training.costs.trials import costs, memory_in_use, peak_memory, writing_seconds
from pairform.training.data.batches import Example, Examples
from pairform.training.loop import Clock, Loop
from pairform.training.metrics import Log
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.optimization.spikes import DivergedError
from pairform.training.settings import TrainingSpec
from pairform.training.step import deterministic


class Run(Protocol):
    """What is trained: the document of a model's spec, the settings, and the seed of the weights and the order of the data."""

    @property
    def spec(self) -> Mapping[str, Any]: ...
    @property
    def training(self) -> TrainingSpec: ...
    @property
    def seed(self) -> int: ...


@deterministic()
def train(
    run: Run,
    examples: Examples,
    latency: bool,
    log: Log,
    *,
    initial: Callable[[str], Model] | None = None,
    checkpoints: Path | None = None,
    begin: int = 0,
    counted: Mapping[str, int] | None = None,
    measure: Callable[[Model], dict[str, float | None]] = lambda model: {},
) -> dict[str, Any]:
    """Build a model, train it and measure it. Equal arguments give equal losses and accuracies, also with another `begin`.

    Args:
        run: The model, the settings and the seed, such as a study's trial.
        examples: The data.
        latency: Also measure the seconds of generating a target.
        log: Receives each line of metrics.
        initial: Makes the model on a device. Default: a model with new weights.
        checkpoints: Folder of checkpoints, written every `checkpoint_every` steps of the settings. Default: none is written.
        begin: Step of the checkpoint in that folder to resume from; 0: the beginning.
        counted: The costs of the model, if they are known.
        measure: Measures the trained model: more results by name.

    Returns:
        Results by name: loss, accuracies, costs, tokens per second, and bytes and seconds taken; None if not measurable here.

    Raises:
        DivergedError: the training or validation loss is not finite.
        CheckpointError: the checkpoint is damaged.
        OutputError: a checkpoint cannot be written.
    """
    settings, seed = run.training, run.seed
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    start = time.perf_counter()
    held_out = examples.validation()
    memory = memory_in_use(settings.device)
    made = build(dict(run.spec), device=settings.device, seed=seed) if initial is None else initial(settings.device)
    model, every = made.train(), settings.checkpoint_every
    lengths = examples.lengths if settings.compile else None
    if settings.compile:
        compile_layers(model)
    optimizer = make_optimizer(model, settings.optimizer, fused=True)
    earlier: dict[str, Any] = load_checkpoint(checkpoints, begin, model, optimizer.each) if checkpoints and begin else {}
    restore_random(earlier, settings.device)

    def after(done: int) -> None:
        if checkpoints is not None and every is not None and done % every == 0 and done < settings.steps:
            state = random_state(settings.device) | {"seconds": loop.clock.seconds, "tokens": loop.clock.tokens} | spent()
            save_checkpoint(checkpoints, done, model, optimizer.each, state)
            prune(checkpoints, 1)

    def spent() -> dict[str, Any]:
        """Seconds and peak memory of the trial, with those before it was interrupted."""
        peak, before = peak_memory(settings.device), earlier.get("peak_bytes")
        used = None if memory is None or peak is None else max(0, peak - memory, before or 0)
        return {"peak_bytes": used, "elapsed": earlier.get("elapsed", 0.0) + time.perf_counter() - start}

    def validated(done: int) -> dict[str, Any]:
        with uncompiled() if settings.compile else contextlib.nullcontext():
            return validation_line(model, held_out, settings, done, loop.clock)

    loop = Loop(
        model,
        optimizer,
        settings.steps,
        settings.schedule,
        batches=lambda begin, end: (
            batch_of(examples.train(seed, step, settings.batch), model, lengths) for step in range(begin, end)
        ),
        log=log,
        computation=computation(settings),
        clock=Clock(earlier.get("seconds", 0.0), earlier.get("tokens", 0)),
        clip=settings.clip,
        phases=settings.phases,
        frozen=settings.frozen,
        log_every=settings.log_every,
        evaluate_every=settings.evaluate_every,
        evaluate=lambda done: log(validated(done)),
        after=after,
    )
    loop.run(begin)
    clock = loop.clock
    final = validated(settings.steps)
    log(final)
    used = spent()
    results: dict[str, Any] = {name: final[name] for name in ("loss", "accuracy", "exact_match")}
    results |= costs(model.spec, examples.lengths, settings.dtype) if counted is None else counted
    results["training_tokens"] = clock.tokens
    results["tokens_per_second"] = clock.tokens / clock.seconds if clock.seconds else None
    results["peak_bytes"] = used["peak_bytes"]
    with uncompiled() if settings.compile else contextlib.nullcontext():
        results |= measure(model)
    if latency:
        source, (read, written) = held_out[0][0], examples.lengths
        with computation(settings).context():
            results["latency"] = writing_seconds(model, source, (read, written))
            results["first_token_seconds"] = writing_seconds(model, source, (read, 1))
    return results | {"seconds": spent()["elapsed"]}


def random_state(device: str) -> dict[str, Any]:
    """The state of torch's random numbers, which dropout draws, on the CPU and on the device."""
    state: dict[str, Any] = {"random": torch.get_rng_state()}
    return state | ({"device_random": torch.cuda.get_rng_state(device)} if torch.device(device).type == "cuda" else {})


def restore_random(state: Mapping[str, Any], device: str) -> None:
    if "random" in state:
        torch.set_rng_state(state["random"])
    if "device_random" in state:
        torch.cuda.set_rng_state(state["device_random"], device)


def validation_line(model: Model, held_out: list[Example], settings: TrainingSpec, step: int, clock: Clock) -> dict[str, Any]:
    """The line of metrics of a validation, as `validate` measures it; `DivergedError` if the loss is not finite."""
    measures = validate(model, held_out, settings)
    if not math.isfinite(measures["loss"]):
        raise DivergedError(f"the validation loss is {measures['loss']} after step {step}")
    return {"step": step, "split": "valid", **measures, "tokens": clock.tokens, "seconds": clock.seconds}
