"""Validation of labels."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from pairform.registry import InputError, Problem

IGNORED = -100
"""The label of positions that the loss ignores, as in torch."""


def check_classes(labels: Tensor, shape: tuple[int, ...], classes: int | None, words: str) -> Tensor:
    """The labels in int64.

    Args:
        shape: the expected shape.
        classes: the number of classes; None for no upper limit.
        words: the expected labels, for error messages.

    Raises:
        InputError: another shape, floats, or on a CPU values that are neither a class nor `IGNORED`.
    """
    check_shape(labels, shape, words)
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(Problem("labels", str(labels.dtype).removeprefix("torch."), f"integers: {words}"))
    if not torch.compiler.is_compiling() and type(labels) is Tensor and labels.device.type == "cpu":
        wrong = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
        wrong &= labels != IGNORED
        if wrong.any():
            bounds = "of 0 or more" if classes is None else f"from 0 to {classes - 1}"
            expected = f"a number {bounds}, or {IGNORED} for a label that does not count"
            raise InputError(Problem("labels", str(int(labels[wrong][0])), expected))
    return labels.long()


def check_shape(labels: Tensor, shape: tuple[int, ...], words: str) -> None:
    if tuple(labels.shape) != shape:
        raise InputError(Problem("labels", f"the shape {tuple(labels.shape)}", f"{shape}: {words}"))


def averaged(loss: Callable[..., Tensor], *inputs: Tensor, tokens: Tensor | None, **options: int) -> Tensor:
    """A loss of torch's: the mean over the labels that count, or with `tokens` their sum divided by that number."""
    if tokens is None:
        return loss(*inputs, **options)
    total = loss(*inputs, reduction="sum", **options)
    return total / tokens.to(total.dtype)


def check_labels(labels: Int[Tensor, " tokens"], vocabulary: int) -> None:
    """Raise `InputError` for token IDs outside the vocabulary. `labels` contains no ignored ones."""
    if len(labels) and (labels.min() < 0 or labels.max() >= vocabulary):
        found = f"labels from {int(labels.min())} to {int(labels.max())}"
        raise InputError(Problem("labels", found, f"token ids below {vocabulary}, or {IGNORED} for tokens that do not count"))
