"""The cross-entropy of a projection to a large vocabulary, fused so that the logits are never all in memory.

The logits of a few tokens at a time are turned into their loss and their gradient (as in Liger, Hsu et al. 2024, arXiv
2410.10989, section 3.2), so that the backward pass recomputes nothing. On a CPU, tokens with an ignored label are removed
first. On other devices counting them would synchronise, so they are computed and weighted by zero.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.functional.dtypes import cast_to, wide
from pairform.blocks.functional.linear import linear
from pairform.blocks.functional.plain import plain
from pairform.blocks.functional.processor import wide_rows
from pairform.blocks.functional.softcap import softcapped
from pairform.blocks.heads.labels import IGNORED, averaged, check_values
from pairform.blocks.heads.loss_terms import Factors, LossParts, LossTerms
from pairform.blocks.heads.tile_losses import loss_of_tile
from pairform.registry import InputError, Problem

HELD = 1 << 28
"""Bytes of logits in memory at a time: enough rows for products at full speed, and few enough sums in the weight's
gradient, which is kept in its own dtype. In bfloat16, where each sum is rounded, four chunks put its error against float64
from 1.9e-3 to 2.6e-3 without a softcap, and from 4.1e-3 to 3.2e-3 with one, since that is no longer rounded."""
TILE = 1 << 16
"""Logits whose losses a CPU computes at a time: few enough to stay in its caches, and in memory that is not returned to the
system after each tile."""
LEAST = 4
"""Rows of logits that a CPU computes at a time at least, since the threads share rows."""
AT_ONCE = 1024
"""Rows of the weight whose gradient is widened at a time."""
FEW = 64
"""The divisor of sums over tokens in float16 in the forward pass; the backward pass divides by the rest. Dividing by the number
of tokens at once would underflow, since a loss scale applies only in the backward pass."""
TENSORS, INPUTS = 8, 13
"""How many inputs the operator has: tensors, which come first, and all."""


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
    are zero, as in torch. There are no second derivatives, except of a few logits on a CPU.
    """
    return linear_losses(hidden, weight, labels, softcap, tokens)[0]


def linear_losses(
    hidden: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "vocabulary width"],
    labels: Int[Tensor, "*batch"],
    softcap: float | None = None,
    tokens: Tensor | None = None,
    terms: LossTerms | None = None,
    bias: Float[Tensor, " vocabulary"] | None = None,
) -> tuple[Float[Tensor, ""], LossParts | None]:
    """As `linear_cross_entropy`, with a bias on the logits and further terms: the loss, and its parts if there are `terms`.

    The teacher's logits are computed chunk by chunk beside the others, and get no gradient.
    """
    if labels.shape != hidden.shape[:-1]:
        raise InputError(
            Problem("labels", f"the shape {tuple(labels.shape)}", f"{tuple(hidden.shape[:-1])}: one for each token")
        )
    if (dtype := cast_to(hidden.device.type)) is not None:  # as autocast does for the plain product
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if terms is None and labels.numel() * weight.shape[0] <= TILE and hidden.dtype != torch.float16 and plain(hidden):
        return loss_of_few(hidden, weight, labels.flatten().long(), softcap, tokens, bias), None
    train = torch.is_grad_enabled()
    wanted = [train and each is not None and each.requires_grad for each in (hidden, weight, bias)]
    teacher = None if terms is None else terms.teacher
    theirs: tuple[Tensor | None, ...] = (None,) * 3
    if teacher is not None:
        of_logits = None if teacher.bias is None else teacher.bias.detach()
        theirs = teacher.hidden.detach().flatten(0, -2), teacher.table.detach(), of_logits
    factors = [] if terms is None else [*terms.factors]
    apply: Any = LinearCrossEntropy.apply  # torch leaves it untyped
    tensors = hidden.flatten(0, -2), weight, bias, labels.flatten().long(), tokens
    loss, parts, *_ = apply(*tensors, *theirs, softcap, factors, *wanted)
    return loss, None if terms is None else LossParts(*parts.unbind())


def loss_of_few(
    hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None, tokens: Tensor | None, bias: Tensor | None
) -> Tensor:
    """The loss of logits that fill one tile, by torch's operators: calls of many more take longer than the arithmetic. The
    logits are kept for the backward pass, at most half a megabyte, which estimates of memory leave out."""
    check_values(labels, weight.shape[0], f"token ids below {weight.shape[0]}")
    logits = wide(linear(hidden.flatten(0, -2), weight, bias))
    logits = logits if softcap is None else softcapped(logits, softcap)
    return averaged(functional.cross_entropy, logits, labels, tokens=tokens)


@torch.library.custom_op("pairform::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    tokens: Tensor | None,
    teacher_hidden: Tensor | None,
    teacher_table: Tensor | None,
    teacher_bias: Tensor | None,
    softcap: float | None,
    factors: list[float],
    hidden_wanted: bool,
    weight_wanted: bool,
    bias_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, its `LossParts` (empty without `factors`), its gradients with respect to `hidden`, `[tokens, width]`, `weight`
    and `bias` (empty if not wanted), and a factor that the gradients must still be multiplied by.

    A custom operator, since torch.compile cannot trace a loop whose length depends on the labels.
    """
    count, vocabulary = hidden.shape[0], weight.shape[0]
    kept, theirs, dropped, counted = hidden, teacher_hidden, False, labels.ne(IGNORED)
    if labels.device.type == "cpu":
        places = counted.nonzero()[:, 0]
        dropped = len(places) < count
        if dropped:
            kept, labels, counted = hidden[places], labels[places], counted[places]
            theirs = None if theirs is None else theirs[places]
        check_values(labels, vocabulary, f"token ids below {vocabulary}")
    ignored = None if labels.device.type == "cpu" else ~counted
    divisor = FEW if hidden.dtype == torch.float16 else max(len(kept), 1)
    of_kept = torch.empty_like(kept) if hidden_wanted else hidden.new_empty(0)
    by_half = weight.device.type == "cpu" and weight.dtype == torch.float16  # there torch also rounds the sums to float16
    of_weight = weight.new_zeros(weight.shape if weight_wanted else 0, dtype=torch.float32 if by_half else None)
    of_bias = wide(hidden.new_zeros(vocabulary if bias_wanted else 0))
    terms = Factors(*factors) if factors else None
    total = wide(hidden.new_zeros(1 if terms is None else 3))
    number = counted.sum() if tokens is None else tokens.to(total.dtype)
    itemsize = weight.element_size() + (0 if teacher_table is None else teacher_table.element_size())
    rows = max(1, HELD // (vocabulary * itemsize))
    for begin in range(0, len(kept), rows):
        chunk = slice(begin, begin + rows)
        logits = linear(kept[chunk], weight, bias)
        given = logits, labels[chunk], None if ignored is None else ignored[chunk], softcap
        of_teacher = None
        if theirs is not None and teacher_table is not None:
            of_teacher = linear(theirs[chunk], teacher_table, teacher_bias)
        total += losses(*given, terms, of_teacher, gradients=hidden_wanted or weight_wanted or bias_wanted)
        if hidden_wanted:
            # `logits` now hold their gradient
            of_kept[chunk] = linear(logits, weight.T).mul_(1 / divisor)
        if weight_wanted:
            add_product(of_weight, logits.T, kept[chunk], 1 / divisor)
        if bias_wanted:
            of_bias += logits.sum(0, dtype=of_bias.dtype) / divisor
    if hidden_wanted and dropped:
        of_kept = torch.zeros_like(hidden).index_copy_(0, places, of_kept)
    # the factor completes the division by the number of labels
    still = divisor / number.clamp(min=1).to(total.dtype)
    return *summed_up(total / number, terms), of_kept, of_weight.to(weight.dtype), of_bias.to(hidden.dtype), still


def add_product(
    total: Float[Tensor, "vocabulary width"],
    gradients: Float[Tensor, "vocabulary rows"],
    hidden: Float[Tensor, "rows width"],
    factor: float,
) -> None:
    """Add `factor * gradients @ hidden` to `total`, in float32 where that is faster or else sums are rounded."""
    if total.dtype == hidden.dtype and wide_rows(hidden.device.type, hidden.dtype) is None:
        total.addmm_(gradients, hidden, alpha=factor)
        return
    hidden = hidden.float()
    for part, some in zip(torch.split(total, AT_ONCE), torch.split(gradients, AT_ONCE), strict=True):
        part.copy_(part.float().addmm_(some.float(), hidden, alpha=factor))


def summed_up(means: Tensor, terms: Factors | None) -> tuple[Tensor, Tensor]:
    """The loss and its parts, from the means of the cross-entropy, the squared log-sum-exp and the distillation loss."""
    if terms is None:
        return means.sum(), means.new_empty(0)  # of one: not a view, which Trainer could not scale in place
    cross_entropy, squares, distilled = means.unbind()
    parts = torch.stack([cross_entropy, terms.z_loss * squares, distilled])
    return (1 - terms.weight) * parts[0] + parts[1] + terms.weight * parts[2], parts


def losses(
    logits: Tensor,
    labels: Tensor,
    ignored: Tensor | None,
    softcap: float | None,
    terms: Factors | None = None,
    theirs: Tensor | None = None,
    *,
    gradients: bool,
) -> Tensor:
    """The summed losses of `logits` before the softcap, `[tokens, vocabulary]`, as of `loss_of_tile`, over tiles."""
    total = wide(logits.new_zeros(1 if terms is None else 3))
    rows = max(LEAST, TILE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for begin in range(0, len(logits), rows):
        tile = slice(begin, begin + rows)
        of_teacher, skipped = (None if each is None else each[tile] for each in (theirs, ignored))
        total += loss_of_tile(logits[tile], labels[tile], skipped, softcap, terms, of_teacher, gradients=gradients)
    return total


@loss_and_gradients.register_fake
def _shapes(hidden: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    factors, hidden_wanted, weight_wanted, bias_wanted = others[-4:]
    return (
        wide(hidden.new_empty(())),
        wide(hidden.new_empty(3 if factors else 0)),
        torch.empty_like(hidden) if hidden_wanted else hidden.new_empty(0),
        torch.empty_like(weight) if weight_wanted else weight.new_empty(0),
        hidden.new_empty(weight.shape[0] if bias_wanted else 0),
        wide(hidden.new_empty(())),
    )


class LinearCrossEntropy(torch.autograd.Function):
    """`loss_and_gradients` as a differentiable function."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = loss_and_gradients(*inputs)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.settings, ctx.made = inputs[TENSORS:], None
        ctx.mark_non_differentiable(output[1])
        if torch.compiler.is_compiling():
            # compiled code saves the gradients, and `backward` multiplies copies of them
            ctx.save_for_backward(*output[2:])
        else:
            # `backward` hands the gradients out, and recomputes them from the inputs if it runs again
            ctx.save_for_backward(*inputs[:TENSORS])
            ctx.made = [each.detach() for each in output[2:]]
        ctx.set_materialize_grads(False)  # the other outputs' gradients are None instead of zeros of their size

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        of_loss = grads[0]
        if of_loss is None:
            return (None,) * INPUTS
        compiling = torch.compiler.is_compiling()
        *made, still = ctx.saved_tensors if compiling else handed_out(ctx)
        with torch.no_grad():
            times = torch.mul if compiling else multiplied
            found = [times(each, of_loss * still) if some else None for each, some in zip(made, ctx.settings[2:], strict=True)]
        if torch.is_grad_enabled() and not compiling:
            apply: Any = OnlyOnce.apply
            found = [None if each is None else apply(each, *ctx.saved_tensors[:2]) for each in found]
        return (*found, *(None,) * (INPUTS - len(found)))


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
    return list(loss_and_gradients(*ctx.saved_tensors, *ctx.settings)[2:]) if made is None else made


def multiplied(gradient: Tensor, factor: Tensor) -> Tensor:
    """`gradient * factor`, in place. On a CPU a factor of one is skipped; elsewhere checking it would synchronise."""
    return gradient if factor.device.type == "cpu" and bool(factor == 1) else gradient.mul_(factor)
