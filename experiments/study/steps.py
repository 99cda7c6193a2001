"""One step of a trial's training, and how long it takes."""

import time

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.computing import computation
from pairform.training.data.batches import Example, Examples, Lengths, collate
from pairform.training.data.stream import Batch, MicroBatch
from pairform.training.optimization.optimizers import Optimizers, make_optimizer
from pairform.training.parallel import ALONE
from pairform.training.settings import TrainingSpec
from pairform.training.step import deterministic, gradients
from pairform.training.step import update as apply


def batch_of(examples: list[Example], model: Model, lengths: Lengths | None = None) -> Batch:
    """A batch that one forward pass computes. lengths: to pad to."""
    labels = sum(len(target) for _, target in examples)
    tokens = labels + sum(len(source) for source, _ in examples)
    inputs = collate(examples, model.spec, lengths)
    padded = sum(tensor.numel() for name, tensor in inputs.items() if name in ("input_ids", "labels"))
    return Batch([MicroBatch(inputs, (), labels, tokens, padded)], labels, tokens, len(examples), 0)


def update(model: Model, examples: list[Example], optimizer: Optimizers, settings: TrainingSpec) -> tuple[Tensor, Tensor]:
    """One optimiser step on a batch of examples.

    Returns:
        The loss of the target tokens before the step, without auxiliary losses, comparable with the validation loss; and the
        norm of the gradients before clipping.
    """
    optimizer.zero_grad()
    measured = gradients(model, optimizer.parameters, batch_of(examples, model), computation(settings), ALONE)
    apply(optimizer, measured, settings.clip)
    return measured.loss, measured.norm


@deterministic()
def step_seconds(spec: ModelSpec, settings: TrainingSpec, examples: Examples, seed: int = 0, steps: int = 1) -> float:
    """The fewest seconds of some steps of training with new weights, after one that also allocates memory.

    All are on the first batch of the seed. Layers are not compiled.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        model = build(spec, device=settings.device, seed=seed).train()
        optimizer = make_optimizer(model, settings.optimizer, fused=True)
        batch = examples.train(seed, 0, settings.batch)
        seconds: list[float] = []
        for _ in range(1 + steps):
            start = time.perf_counter()
            loss, _ = update(model, batch, optimizer, settings)
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:])
    finally:
        torch.set_num_threads(threads)
