"""One step of training: the gradients of the global batch, over micro-batches and processes, and the update."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pairform.assemblies.modeling.model import Model
from pairform.training.data.stream import Batch
from pairform.training.optimization.optimizers import Optimizers
from pairform.training.parallel import World


@dataclass(frozen=True)
class Computation:
    """Where and how gradients are computed.

    device:  where the model is.
    context: made for each forward pass, such as one of autocast.
    """

    device: str | torch.device = "cpu"
    context: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


@dataclass
class Measured:
    """Of a step, over the global batch and before its update.

    loss:  mean over label tokens, without the losses in `extra`.
    norm:  of the gradients, before clipping.
    extra: other losses by name: `auxiliary_loss` is that of blocks such as a mixture of experts.
    """

    loss: Tensor
    norm: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


def gradients(model: Model, batch: Batch, computation: Computation, world: World) -> Measured:
    """Add the gradients of the mean loss over the label tokens of the global batch, of which this process has a part."""
    labels = torch.tensor(batch.labels, device=computation.device)  # as a number, compiled code would be made for each
    share = 1 / (len(batch.micro) * world.size)
    total: dict[str, Tensor] = {}
    for micro in batch.micro:
        inputs = {name: tensor.to(computation.device, non_blocking=True) for name, tensor in micro.inputs.items()}
        with computation.context():
            output = model(**inputs, loss_tokens=labels)
        loss, losses = output.loss, {}
        if output.auxiliary_loss is not None:
            loss = loss - output.auxiliary_loss
            losses["auxiliary_loss"] = output.auxiliary_loss * share
        torch.autograd.backward(torch.stack([loss, *losses.values()]).sum())
        for name, value in (losses | {"loss": loss}).items():
            total[name] = total[name] + value.detach() if name in total else value.detach()
    names = sorted(total)
    summed = world.sum(torch.stack([total[name].float() for name in names]))
    extra = dict(zip(names, summed, strict=True))
    return Measured(extra.pop("loss"), gradient_norm(model), extra)


def gradient_norm(model: nn.Module) -> Tensor:
    """The norm of all gradients, over all processes that have parts of them."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def update(model: Model, optimizers: Optimizers, measured: Measured, clip: float | None) -> None:
    """Change the weights by the gradients that they have, clipped to a norm."""
    if clip is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip, measured.norm)
    optimizers.step()
