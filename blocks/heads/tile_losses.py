"""The losses of a few tokens whose logits are in memory, and their gradients with respect to these logits."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.functional.dtypes import wide
from pairform.blocks.heads.loss_terms import Factors


def loss_of_tile(
    logits: Float[Tensor, "tokens vocabulary"],
    labels: Int[Tensor, "tokens"],
    ignored: Bool[Tensor, "tokens"] | None,
    softcap: float | None,
    factors: Factors | None = None,
    theirs: Float[Tensor, "tokens vocabulary"] | None = None,
    *,
    gradients: bool,
) -> Float[Tensor, "parts"]:
    """The summed losses: the cross-entropy and, with `factors`, the square of the log-sum-exp and the distillation loss.

    Args:
        logits: before the softcap; with `gradients`, those of the whole loss overwrite them.
        ignored: whose losses and gradients are zero; None if no label is ignored.
        theirs: the teacher's logits, before its softcap.
    """
    labels = (labels if ignored is None else labels.masked_fill(ignored, 0))[:, None]
    capped, squashed = softcapped(logits, softcap)
    probabilities = capped.softmax(-1)
    normaliser = log_sum_exp(capped, probabilities)
    losses = [normaliser - capped.gather(1, labels)[:, 0]]
    share, difference = 1.0, None
    if factors is not None:
        share = 1 - factors.weight
        if softcap is not None and is_half(logits):
            normaliser = normaliser - softcap  # the constant that `softcapped` leaves out
        losses += [normaliser.square(), torch.zeros_like(normaliser)]
        if theirs is not None:
            losses[2], difference = divergence(capped, softcapped(theirs, factors.softcap or None)[0], factors.temperature)
    if gradients:
        if factors is not None:
            probabilities *= (share + 2 * factors.z_loss * normaliser)[:, None]
        # softmax minus one-hot
        probabilities.scatter_add_(1, labels, probabilities.new_full((1, 1), -share).expand_as(labels))
        if factors is not None and difference is not None:
            probabilities.add_(difference, alpha=factors.weight * factors.temperature)
        if squashed is not None:
            probabilities = softcap_backward(probabilities, squashed, half=is_half(logits))
        logits.copy_(probabilities if ignored is None else probabilities.masked_fill_(ignored[:, None], 0))
    return torch.stack([(loss if ignored is None else loss.masked_fill(ignored, 0)).sum() for loss in losses])


def divergence(
    ours: Float[Tensor, "tokens vocabulary"], theirs: Float[Tensor, "tokens vocabulary"], temperature: float
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens vocabulary"]]:
    """`temperature ** 2 * KL(teacher || model)` at this temperature, and our probabilities minus the teacher's."""
    if temperature != 1:
        ours, theirs = ours / temperature, theirs / temperature
    probabilities, wanted = ours.softmax(-1), theirs.softmax(-1)
    shift = log_sum_exp(ours, probabilities) - log_sum_exp(theirs, wanted)
    found = torch.linalg.vecdot(wanted, theirs - ours) + shift
    return found.clamp(min=0) * temperature**2, probabilities.sub_(wanted)


def log_sum_exp(logits: Float[Tensor, "tokens vocabulary"], probabilities: Tensor) -> Float[Tensor, "tokens"]:
    """From the most probable token, whose probability never underflows."""
    return logits.amax(-1) - probabilities.amax(-1).log()


def is_half(logits: Tensor) -> bool:
    return logits.dtype.itemsize < 4


def softcapped(logits: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """The logits after the softcap, in at least float32, and the value that its derivative is computed from.

    For half-precision logits the softcap is `softcap * 2 * sigmoid(2 * logits / softcap)`, which is as accurate and ten times
    as fast on a CPU. It is short of `- softcap`, a constant that cancels in softmax, cross-entropy and divergence.
    """
    if softcap is None:
        return wide(logits), None
    half = is_half(logits)
    inner, activation, outer = (2 / softcap, torch.sigmoid, 2 * softcap) if half else (1 / softcap, torch.tanh, softcap)
    squashed = activation(wide(logits) * inner)
    return squashed * outer, squashed


def softcap_backward(gradient: Tensor, squashed: Tensor, *, half: bool) -> Tensor:
    """The gradient with respect to the logits before the softcap."""
    if half:
        # d/dx of 2 softcap sigmoid(2 x / softcap) is 4 times the sigmoid's derivative
        return torch.ops.aten.sigmoid_backward(gradient, squashed).mul_(4)
    return torch.ops.aten.tanh_backward(gradient, squashed)
