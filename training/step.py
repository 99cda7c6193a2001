"""One step of training: the gradients of the global batch, over micro-batches and processes, and the update."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pairform.assemblies.modeling.model import Model
from pairform.blocks.heads.loss_terms import LossParts, LossTerms
from pairform.training.data.stream import Batch, MicroBatch
from pairform.training.optimization.optimizers import Optimizers
from pairform.training.parallel import World

MakeTerms = Callable[[MicroBatch], contextlib.AbstractContextManager[LossTerms | None]]
"""Makes the terms of the loss besides the cross-entropy, for one forward pass within the block."""


def no_terms(micro: MicroBatch) -> contextlib.AbstractContextManager[LossTerms | None]:
    """The cross-entropy alone."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Computation:
    """Where and how gradients are computed.

    device:  where the model is.
    context: made for each forward pass, such as one of autocast.
    terms:   made for each forward pass of training.
    """

    device: str | torch.device = "cpu"
    context: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    terms: MakeTerms = no_terms


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """In this block torch uses deterministic algorithms, and warns where it has none.

    By default it then also fills all new memory, which makes errors repeat in code that reads memory before writing it.
    """
    memory: Any = torch.utils.deterministic  # whose attribute torch adds at run time
    mode, filled = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = filled


@dataclass
class Measured:
    """Of a step, over the global batch and before its update.

    loss:  mean cross-entropy over label tokens.
    norm:  of the gradients, before clipping.
    extra: other losses by name, as `named` and `auxiliary_loss`, that of blocks such as a mixture of experts.
    """

    loss: Tensor
    norm: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


def gradients(
    model: Model, parameters: Iterable[nn.Parameter], batch: Batch, computation: Computation, world: World
) -> Measured:
    """Add the gradients of the mean loss over the label tokens of the global batch, of which this process has a part.

    parameters: of the model, whose gradients are measured.
    """
    labels = torch.tensor(batch.labels, device=computation.device)  # as a number, compiled code would be made for each
    share = 1 / (len(batch.micro) * world.size)
    total: dict[str, Tensor] = {}
    for micro in batch.micro:
        inputs = {name: tensor.to(computation.device, non_blocking=True) for name, tensor in micro.inputs.items()}
        with computation.context(), computation.terms(micro) as terms:
            output = model(**inputs, loss_tokens=labels, loss_terms=terms)
        loss, losses = output.loss, {}
        if output.auxiliary_loss is not None:
            loss = loss - output.auxiliary_loss
            losses["auxiliary_loss"] = output.auxiliary_loss * share
        torch.autograd.backward(torch.stack([loss, *losses.values()]).sum())
        for name, value in (losses | {"loss": loss} | named(output.loss_parts, terms)).items():
            total[name] = total[name] + value.detach() if name in total else value.detach()
    names = sorted(total)
    summed = world.sum(torch.stack([total[name].float() for name in names]))
    extra = dict(zip(names, summed, strict=True))
    return Measured(extra.pop("loss"), gradient_norm(parameters), extra)


def named(parts: LossParts | None, terms: LossTerms | None) -> dict[str, Tensor]:
    """The parts of a loss that has such terms, by the names that they have in the metrics: `loss` is the cross-entropy."""
    if parts is None or terms is None:
        return {}
    found = {"loss": parts.cross_entropy}
    if terms.z_loss:
        found["z_loss"] = parts.z_loss
    return found if terms.teacher is None else found | {"distillation_loss": parts.distillation_loss}


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients, over all processes that have parts of them."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def update(optimizers: Optimizers, measured: Measured, clip: float | None) -> None:
    """Change the weights by the gradients that they have, clipped to a norm."""
    if clip is not None:
        nn.utils.clip_grads_with_norm_(optimizers.parameters, clip, measured.norm)
    optimizers.step()
