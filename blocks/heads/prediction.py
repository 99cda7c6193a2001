"""Lazy logits: a head runs when its logits are first read."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pairform.blocks.functional.dtypes import cast_to, is_sharded
from pairform.registry import InputError, Problem

SAMPLED = 1024
"""Elements of each weight that are compared, to detect writes that do not change its version (fused optimisers)."""


class Prediction:
    """`head(hidden, valid, tied)`, computed once when `logits` is first read, in the modes (gradients, autocast) of the forward
    pass.

    hidden: the last hidden states, `[batch, length, width]`.
    valid:  False at padding; None: there is no padding.
    tied:   the embedding table that the head shares, `[vocabulary, width]`, if it does.

    The first read raises `InputError` if the weights have changed since `keep_track`.
    """

    def __init__(
        self,
        head: nn.Module,
        hidden: Float[Tensor, "batch length width"],
        valid: Bool[Tensor, "batch length"] | None,
        tied: Float[Tensor, "vocabulary width"] | None,
    ) -> None:
        self.head, self.hidden, self.valid, self.tied = head, hidden, valid, tied
        self.made: Tensor | None = None  # not a cached_property, whose lock in Python 3.11 breaks a compiled graph
        self.gradients = torch.is_grad_enabled()
        self.dtype = cast_to(hidden.device.type)
        self.weights: Weights | None = None

    @property
    def logits(self) -> Tensor:
        if self.made is None:
            if self.weights is not None and any(map(is_sharded, self.read())):
                found = "weights that have been freed since the forward pass, which gathered them"
                raise InputError(Problem("logits", found, "logits computed in the forward pass", "Pass output_logits=True."))
            if self.weights is not None and self.weights.changed(self.read()):
                found = "weights that have changed since the forward pass"
                raise InputError(
                    Problem("logits", found, "logits read before the weights change", "They are kept once they are read.")
                )
            cast = nullcontext() if self.dtype is None else torch.autocast(self.hidden.device.type, self.dtype)
            with torch.set_grad_enabled(self.gradients), cast:
                self.made = self.head(self.hidden, self.valid, self.tied)
        made: Tensor = self.made
        return made

    def read(self) -> list[Tensor]:
        """The tensors that the head reads besides the hidden states."""
        return [*self.head.parameters(), *self.head.buffers(), *([] if self.tied is None else [self.tied])]

    def keep_track(self) -> None:
        """Record the present state of the weights, unless the logits have already been computed."""
        if self.made is None:
            self.weights = Weights(self.read())


class Weights:
    """A fingerprint of some tensors, to detect changes: their identity, their versions and a sample of their elements.

    The version counts writes known to autograd. It misses writes through `.data` and by some fused optimisers (AdamW on a CPU
    in torch 2.13). These change nearly all elements, so a sample detects them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.versions = [version(tensor) for tensor in tensors]
        self.samples = [sample(tensor) for tensor in tensors]

    def changed(self, tensors: Sequence[Tensor]) -> bool:
        """Whether `tensors` are not the recorded objects, or have other values."""
        if len(tensors) != len(self.tensors) or any(map(differ, tensors, self.tensors)):
            return True
        now = Weights(tensors)
        counted = zip(now.versions, self.versions, strict=True)
        rewritten = any(None not in pair and pair[0] != pair[1] for pair in counted)
        return rewritten or not all(map(same, now.samples, self.samples))


def differ(tensor: Tensor, other: Tensor) -> bool:
    return tensor is not other


def version(tensor: Tensor) -> int | None:
    """autograd's count of writes; None for tensors made in inference mode, whose writes are not counted."""
    if torch.compiler.is_compiling():  # it cannot trace `is_inference`; with gradients that mode is off
        return tensor._version if torch.is_grad_enabled() else None
    return None if tensor.is_inference() else tensor._version


def sample(tensor: Tensor) -> Tensor | None:
    """A copy of evenly spaced elements; None where that would need a copy of the whole tensor."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta or not tensor.is_contiguous():
        return None
    step = tensor.numel() // SAMPLED | 1  # odd, to sample all columns of a matrix of even width
    return tensor.detach().view(-1)[::step].clone()


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two samples are equal bit by bit, NaN included."""
    if one is None or other is None:
        return one is other
    if (one.dtype, one.device, one.shape) != (other.dtype, other.device, other.shape):
        return False
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))
