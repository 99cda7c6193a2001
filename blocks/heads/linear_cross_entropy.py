"""The cross-entropy of a projection to a large vocabulary, without holding its logits.

Logits of a few tokens at a time become their loss and at once their gradient (as in Liger, Hsu et al. 2024, arXiv 2410.10989,
section 3.2), so that the backward pass has nothing to compute again. On a CPU tokens whose label is ignored are left out first.
Elsewhere to count them would wait for the device, so they are computed and weighted by zero.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.functional.dtypes import cast_to, wide
from pairform.blocks.heads.labels import IGNORED, check_labels
from pairform.registry import InputError, Problem

HELD = 1 << 28
"""Bytes of logits that are held at a time: enough rows for products at full speed, and few enough sums in the weight's
gradient, which is kept in its own dtype. In bfloat16, where each sum is rounded, four chunks put its error against float64
from 1.9e-3 to 2.6e-3 without a softcap, and from 4.1e-3 to 3.2e-3 with one, since that is no longer rounded."""
TILE = 1 << 20
"""Of them, those that a processor widens at a time: few enough to stay in its caches."""
FEW = 64
"""What sums over tokens are divided by at first in float16, which a loss scale saves from underflow in the backward pass only:
a mean over many tokens would be lost before. The rest of the division is left to the backward pass."""


def linear_cross_entropy(
    hidden: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "vocabulary width"],
    labels: Int[Tensor, "*batch"],
    softcap: float | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the logits `hidden weight^T`, bounded to `softcap * tanh(logits / softcap)`, where labels count.

    Softcap, softmax and the loss are in at least float32. Without a label that counts the loss is nan and its gradients are
    zero, as in torch. It can be differentiated once.
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
    loss: Tensor = apply(hidden.flatten(0, -2), weight, labels.flatten().long(), softcap, *wanted)[0]
    return loss


@torch.library.custom_op("pairform::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None, hidden_wanted: bool, weight_wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, its gradients with respect to hidden `[tokens, width]` and weight, empty where not wanted, and a number that
    these are still to be multiplied by.

    An operator of its own, since torch.compile cannot follow a loop whose length depends on the labels.
    """
    count, vocabulary = hidden.shape[0], weight.shape[0]
    kept, dropped, counted = hidden, False, labels.ne(IGNORED)
    if labels.device.type == "cpu":
        places = counted.nonzero()[:, 0]
        dropped = len(places) < count
        if dropped:
            kept, labels, counted = hidden[places], labels[places], counted[places]
        check_labels(labels, vocabulary)
    number, ignored = counted.sum(), ~counted
    divisor = FEW if hidden.dtype == torch.float16 else max(len(kept), 1)
    of_kept = torch.empty_like(kept) if hidden_wanted else hidden.new_empty(0)
    by_half = weight.device.type == "cpu" and weight.dtype == torch.float16  # there sums of products are rounded to it too
    of_weight = weight.new_zeros(weight.shape if weight_wanted else 0, dtype=torch.float32 if by_half else None)
    total = wide(hidden.new_zeros(()))
    rows = max(1, HELD // (vocabulary * weight.element_size()))
    for begin in range(0, len(kept), rows):
        some = slice(begin, begin + rows)
        logits = kept[some] @ weight.T
        total += losses(logits, labels[some], ignored[some], softcap, gradients=hidden_wanted or weight_wanted)
        if hidden_wanted:
            of_kept[some] = (logits @ weight).mul_(1 / divisor)
        if weight_wanted:
            terms = (each.to(of_weight.dtype) for each in (logits.T, kept[some]))
            of_weight.addmm_(*terms, alpha=1 / divisor)
    if hidden_wanted and dropped:
        of_kept = torch.zeros_like(hidden).index_copy_(0, places, of_kept)
    return total / number, of_kept, of_weight.to(weight.dtype), divisor / number.clamp(min=1).to(total.dtype)


def losses(logits: Tensor, labels: Tensor, ignored: Tensor, softcap: float | None, *, gradients: bool) -> Tensor:
    """The summed loss of `logits` before their softcap, `[tokens, vocabulary]`; with `gradients`, these take their place."""
    total = wide(logits.new_zeros(()))
    rows = max(1, TILE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for some, of_some, left_out in zip(*(torch.split(each, rows) for each in (logits, labels, ignored)), strict=True):
        total += loss_of_tile(some, of_some, left_out, softcap, gradients=gradients)
    return total


def loss_of_tile(
    logits: Float[Tensor, "tokens vocabulary"],
    labels: Int[Tensor, "tokens"],
    ignored: Bool[Tensor, "tokens"],
    softcap: float | None,
    *,
    gradients: bool,
) -> Tensor:
    some_ignored = logits.device.type != "cpu"  # there they are left out
    labels = (labels.masked_fill(ignored, 0) if some_ignored else labels)[:, None]
    capped = wide(logits)
    if softcap is not None:
        # on logits of half precision tanh(x) = 2 sigmoid(2 x) - 1 loses nothing, and is ten times as quick on a CPU
        rough = logits.dtype.itemsize < 4
        inner, bound, outer = (2 / softcap, torch.sigmoid, 2 * softcap) if rough else (1 / softcap, torch.tanh, softcap)
        bounded = bound(capped * inner)
        capped = bounded * outer
    chances = capped.softmax(-1)
    # the logarithm of the sum, by the likeliest token, whose chance is never too small for a float
    normaliser = capped.amax(-1) - chances.amax(-1).log()
    loss = normaliser - capped.gather(1, labels)[:, 0]
    loss = loss.masked_fill(ignored, 0) if some_ignored else loss
    if gradients:
        chances.scatter_add_(1, labels, chances.new_full((1, 1), -1).expand_as(labels))
        if softcap is not None:
            if rough:
                chances = torch.ops.aten.sigmoid_backward(chances, bounded).mul_(4)
            else:
                chances = torch.ops.aten.tanh_backward(chances, bounded)
        logits.copy_(chances.masked_fill_(ignored[:, None], 0) if some_ignored else chances)
    return loss.sum()


@loss_and_gradients.register_fake
def _shapes(
    hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None, hidden_wanted: bool, weight_wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        wide(hidden.new_empty(())),
        torch.empty_like(hidden) if hidden_wanted else hidden.new_empty(0),
        torch.empty_like(weight) if weight_wanted else weight.new_empty(0),
        wide(hidden.new_empty(())),
    )


class LinearCrossEntropy(torch.autograd.Function):
    """`loss_and_gradients` to autograd."""

    @staticmethod
    def forward(
        hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None, hidden_wanted: bool, weight_wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made: tuple[Tensor, Tensor, Tensor, Tensor] = loss_and_gradients(
            hidden, weight, labels, softcap, hidden_wanted, weight_wanted
        )
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.settings, ctx.made = inputs[3:], None
        if torch.compiler.is_compiling():
            ctx.save_for_backward(*output[1:])
        else:
            ctx.save_for_backward(*inputs[:3])
            ctx.made = [each.detach() for each in output[1:]]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        of_loss = grads[0]
        if of_loss is None:
            return (None,) * 6
        compiling = torch.compiler.is_compiling()
        *made, still = ctx.saved_tensors if compiling else handed_out(ctx)
        with torch.no_grad():
            times = torch.mul if compiling else multiplied
            found = [times(each, of_loss * still) if some else None for each, some in zip(made, ctx.settings[1:], strict=True)]
        if torch.is_grad_enabled() and not compiling:
            apply: Any = OnlyOnce.apply
            found = [None if each is None else apply(each, *ctx.saved_tensors[:2]) for each in found]
        return (*found, None, None, None, None)


class OnlyOnce(torch.autograd.Function):
    """A gradient as a function of what it was computed from, whose derivative is an error."""

    @staticmethod
    def forward(gradient: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise InputError(Problem("loss", "a second derivative of the loss", "a first one: it is computed with the loss itself"))


def handed_out(ctx: Any) -> list[Tensor]:
    """What the forward pass made for the backward pass, once: the caller may write to it, and autograd makes it the parameter's
    `.grad`. Another backward pass over the same graph computes it again."""
    made: list[Tensor] | None = ctx.made
    ctx.made = None
    return list(loss_and_gradients(*ctx.saved_tensors, *ctx.settings)[1:]) if made is None else made


def multiplied(gradient: Tensor, factor: Tensor) -> Tensor:
    """In place. Nothing is done for a factor of one, where looking at it does not wait for a device."""
    return gradient if factor.device.type == "cpu" and bool(factor == 1) else gradient.mul_(factor)
