"""The cross-entropy of a projection to a large vocabulary, fused so that the logits are never all in memory.

The logits of a few tokens at a time are turned into their loss and their gradient (as in Liger, Hsu et al. 2024, arXiv
2410.10989, section 3.2), so that the backward pass recomputes nothing. On a CPU, tokens with an ignored label are removed
first. On other devices counting them would synchronise, so they are computed and weighted by zero.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.functional.dtypes import cast_to, wide
from pairform.blocks.heads.labels import IGNORED, check_values
from pairform.registry import InputError, Problem

HELD = 1 << 28
"""Bytes of logits in memory at a time: enough rows for products at full speed, and few enough sums in the weight's
gradient, which is kept in its own dtype. In bfloat16, where each sum is rounded, four chunks put its error against float64
from 1.9e-3 to 2.6e-3 without a softcap, and from 4.1e-3 to 3.2e-3 with one, since that is no longer rounded."""
TILE = 1 << 20
"""Logits that a CPU converts to float32 at a time: few enough to stay in its caches."""
FEW = 64
"""The divisor of sums over tokens in float16 in the forward pass; the backward pass divides by the rest. Dividing by the number
of tokens at once would underflow, since a loss scale applies only in the backward pass."""


def linear_cross_entropy(
    hidden: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "vocabulary width"],
    labels: Int[Tensor, "*batch"],
    softcap: float | None = None,
    tokens: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the logits `hidden weight^T` over the labels that are not ignored.

    Args:
        hidden: `[..., width]`, in the order of the labels: each hidden state predicts the label at its own position.
        softcap: apply `softcap * tanh(logits / softcap)` to the logits; None for no softcap.
        tokens: a number, `[]`. The loss is then the sum divided by it, and 0 if all labels are ignored.

    Raises:
        InputError: labels of another shape, or on a CPU token IDs outside the vocabulary.

    Softcap, softmax and loss are computed in at least float32. If all labels are ignored, the loss is nan and its gradients
    are zero, as in torch. There are no second derivatives.
    """
    if labels.shape != hidden.shape[:-1]:
        raise InputError(
            Problem("labels", f"the shape {tuple(labels.shape)}", f"{tuple(hidden.shape[:-1])}: one for each token")
        )
    if (dtype := cast_to(hidden.device.type)) is not None:  # as autocast does for the plain product
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    train = torch.is_grad_enabled()
    wanted = train and hidden.requires_grad, train and weight.requires_grad
    apply: Any = LinearCrossEntropy.apply  # torch leaves it untyped
    loss: Tensor = apply(hidden.flatten(0, -2), weight, labels.flatten().long(), tokens, softcap, *wanted)[0]
    return loss


@torch.library.custom_op("pairform::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    tokens: Tensor | None,
    softcap: float | None,
    hidden_wanted: bool,
    weight_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, its gradients with respect to `hidden`, `[tokens, width]`, and `weight` (empty if not wanted), and a factor
    that the gradients must still be multiplied by.

    A custom operator, since torch.compile cannot trace a loop whose length depends on the labels.
    """
    count, vocabulary = hidden.shape[0], weight.shape[0]
    kept, dropped, counted = hidden, False, labels.ne(IGNORED)
    if labels.device.type == "cpu":
        places = counted.nonzero()[:, 0]
        dropped = len(places) < count
        if dropped:
            kept, labels, counted = hidden[places], labels[places], counted[places]
        check_values(labels, vocabulary, f"token ids below {vocabulary}")
    ignored = ~counted
    divisor = FEW if hidden.dtype == torch.float16 else max(len(kept), 1)
    of_kept = torch.empty_like(kept) if hidden_wanted else hidden.new_empty(0)
    by_half = weight.device.type == "cpu" and weight.dtype == torch.float16  # there torch also rounds the sums to float16
    of_weight = weight.new_zeros(weight.shape if weight_wanted else 0, dtype=torch.float32 if by_half else None)
    total = wide(hidden.new_zeros(()))
    number = counted.sum() if tokens is None else tokens.to(total.dtype)
    rows = max(1, HELD // (vocabulary * weight.element_size()))
    for begin in range(0, len(kept), rows):
        chunk = slice(begin, begin + rows)
        logits = kept[chunk] @ weight.T
        total += losses(logits, labels[chunk], ignored[chunk], softcap, gradients=hidden_wanted or weight_wanted)
        if hidden_wanted:
            # `logits` now hold their gradient
            of_kept[chunk] = (logits @ weight).mul_(1 / divisor)
        if weight_wanted:
            terms = (each.to(of_weight.dtype) for each in (logits.T, kept[chunk]))
            of_weight.addmm_(*terms, alpha=1 / divisor)  # [vocabulary, rows] times [rows, width]
    if hidden_wanted and dropped:
        of_kept = torch.zeros_like(hidden).index_copy_(0, places, of_kept)
    # the factor completes the division by the number of labels
    return total / number, of_kept, of_weight.to(weight.dtype), divisor / number.clamp(min=1).to(total.dtype)


def losses(logits: Tensor, labels: Tensor, ignored: Tensor, softcap: float | None, *, gradients: bool) -> Tensor:
    """The summed loss of `logits` before the softcap, `[tokens, vocabulary]`; with `gradients`, they overwrite `logits`."""
    total = wide(logits.new_zeros(()))
    rows = max(1, TILE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for tile, of_tile, ignored_in_tile in zip(*(torch.split(each, rows) for each in (logits, labels, ignored)), strict=True):
        total += loss_of_tile(tile, of_tile, ignored_in_tile, softcap, gradients=gradients)
    return total


def loss_of_tile(
    logits: Float[Tensor, "tokens vocabulary"],
    labels: Int[Tensor, "tokens"],
    ignored: Bool[Tensor, "tokens"],
    softcap: float | None,
    *,
    gradients: bool,
) -> Tensor:
    some_ignored = logits.device.type != "cpu"  # on a CPU they have been removed
    labels = (labels.masked_fill(ignored, 0) if some_ignored else labels)[:, None]
    capped = wide(logits)
    if softcap is not None:
        # for half-precision logits 2 sigmoid(2 x) - 1 is as accurate as tanh(x), and ten times as fast on a CPU
        half = logits.dtype.itemsize < 4
        inner, activation, outer = (2 / softcap, torch.sigmoid, 2 * softcap) if half else (1 / softcap, torch.tanh, softcap)
        squashed = activation(capped * inner)
        # the sigmoid form is short of `- softcap`, a constant that cancels in softmax and loss
        capped = squashed * outer
    probabilities = capped.softmax(-1)
    # log-sum-exp from the most probable token, whose probability never underflows
    normaliser = capped.amax(-1) - probabilities.amax(-1).log()
    loss = normaliser - capped.gather(1, labels)[:, 0]
    loss = loss.masked_fill(ignored, 0) if some_ignored else loss
    if gradients:
        # softmax minus one-hot
        probabilities.scatter_add_(1, labels, probabilities.new_full((1, 1), -1).expand_as(labels))
        if softcap is not None:
            if half:
                # d/dx of 2 softcap sigmoid(2 x / softcap) is 4 times the sigmoid's derivative
                probabilities = torch.ops.aten.sigmoid_backward(probabilities, squashed).mul_(4)
            else:
                probabilities = torch.ops.aten.tanh_backward(probabilities, squashed)
        logits.copy_(probabilities.masked_fill_(ignored[:, None], 0) if some_ignored else probabilities)
    return loss.sum()


@loss_and_gradients.register_fake
def _shapes(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    tokens: Tensor | None,
    softcap: float | None,
    hidden_wanted: bool,
    weight_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        wide(hidden.new_empty(())),
        torch.empty_like(hidden) if hidden_wanted else hidden.new_empty(0),
        torch.empty_like(weight) if weight_wanted else weight.new_empty(0),
        wide(hidden.new_empty(())),
    )


class LinearCrossEntropy(torch.autograd.Function):
    """`loss_and_gradients` as a differentiable function."""

    @staticmethod
    def forward(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        tokens: Tensor | None,
        softcap: float | None,
        hidden_wanted: bool,
        weight_wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made: tuple[Tensor, Tensor, Tensor, Tensor] = loss_and_gradients(
            hidden, weight, labels, tokens, softcap, hidden_wanted, weight_wanted
        )
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.settings, ctx.made = inputs[4:], None
        if torch.compiler.is_compiling():
            # compiled code saves the gradients, and `backward` multiplies copies of them
            ctx.save_for_backward(*output[1:])
        else:
            # `backward` hands the gradients out, and recomputes them from the inputs if it runs again
            ctx.save_for_backward(*inputs[:4])
            ctx.made = [each.detach() for each in output[1:]]
        ctx.set_materialize_grads(False)  # the other outputs' gradients are None instead of zeros of their size

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        of_loss = grads[0]
        if of_loss is None:
            return (None,) * 7
        compiling = torch.compiler.is_compiling()
        *made, still = ctx.saved_tensors if compiling else handed_out(ctx)
        with torch.no_grad():
            times = torch.mul if compiling else multiplied
            found = [times(each, of_loss * still) if some else None for each, some in zip(made, ctx.settings[1:], strict=True)]
        if torch.is_grad_enabled() and not compiling:
            apply: Any = OnlyOnce.apply
            found = [None if each is None else apply(each, *ctx.saved_tensors[:2]) for each in found]
        return (*found, None, None, None, None, None)


class OnlyOnce(torch.autograd.Function):
    """The identity on a gradient, connected to its inputs so that a second derivative raises an error."""

    @staticmethod
    def forward(gradient: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise InputError(Problem("loss", "a second derivative of the loss", "a first one: it is computed with the loss itself"))


def handed_out(ctx: Any) -> list[Tensor]:
    """The gradients from the forward pass, which the caller may overwrite. Autograd may make them the parameter's `.grad`, so
    they are given out only once; another backward pass over the same graph recomputes them."""
    made: list[Tensor] | None = ctx.made
    ctx.made = None
    return list(loss_and_gradients(*ctx.saved_tensors, *ctx.settings)[1:]) if made is None else made


def multiplied(gradient: Tensor, factor: Tensor) -> Tensor:
    """`gradient * factor`, in place. On a CPU a factor of one is skipped; elsewhere checking it would synchronise."""
    return gradient if factor.device.type == "cpu" and bool(factor == 1) else gradient.mul_(factor)
