"""Heads: from the last hidden states to logits and loss.

The `forward(hidden, valid, tied)` of a head takes `[batch, length, width]`, the padding mask (False at padding) and, with tied
embeddings, the table. Its `loss(prediction, labels, shift, tokens=None)` equals that of the same head in transformers, a mean
over the labels that count; with `tokens`, a number in a tensor, it is their sum divided by that number. It is computed from the
prediction's logits or from its hidden states. A spec class with `pools = True` has one output per row, so that packed rows are
rejected.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.blocked_ops import by_rows
from pairform.blocks.functional.dtypes import is_sharded
from pairform.blocks.functional.linear import linear
from pairform.blocks.functional.softcap import softcapped
from pairform.blocks.heads.labels import IGNORED
from pairform.blocks.heads.linear_cross_entropy import linear_losses
from pairform.blocks.heads.loss_terms import LossParts, LossTerms, Teacher
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.transform import TransformSpec, transform_of
from pairform.registry import BlockSpec, InputError, PositiveFloat, Problem, Sizes


class LMHead(nn.Module):
    """Logits over the vocabulary, plus a bias if the spec has one, with a softcap `softcap * tanh(logits / softcap)` if it is
    set."""

    class Spec(BlockSpec):
        name: Literal["lm"] = "lm"
        formula: ClassVar[str] = r"""
        $$\ell = W x + b$$

        and with a softcap $\kappa$, $\ell = \kappa \tanh((W x + b) / \kappa)$. With `tie`, $W$ is the embedding table.
        """
        tie: Literal["encoder", "decoder"] | None = Field(
            default=None,
            description="Stack whose embedding table is also the projection (tied embeddings). Default: the head has its own.",
        )
        scale: Literal["inverse_sqrt_width"] | PositiveFloat | None = Field(
            default=None,
            description="Factor on the hidden states before the projection. `inverse_sqrt_width`: `width ** -0.5`, as T5 does "
            "with tied embeddings (Raffel et al. 2020, arXiv 1910.10683, and its code). Default: none.",
        )
        bias: Literal["learned", "fixed"] | None = Field(
            default=None,
            description="Add a number for each token to the logits. fixed: it is stored and not trained, as BART's "
            "`final_logits_bias`. Default: none.",
        )
        softcap: PositiveFloat | None = Field(default=None, description="Limit of the logits' absolute value. Default: none.")
        transform: TransformSpec | None = Field(
            default=None,
            description="Dense layer, activation and norm before the projection, as in BERT. Default: none.",
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if self.transform is not None:
                yield from self.transform.check(sizes)

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.vocabulary is not None, "given by every model"
        self.spec = spec
        self.transform = transform_of(spec.transform, sizes)
        self.factor = sizes.width**-0.5 if spec.scale == "inverse_sqrt_width" else spec.scale
        self.weight = None if spec.tie else nn.Parameter(torch.empty(sizes.vocabulary, sizes.width))
        self.bias = None
        if spec.bias is not None:
            self.bias = nn.Parameter(torch.empty(sizes.vocabulary), requires_grad=spec.bias == "learned")

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Tensor | None, tied: Tensor | None
    ) -> Float[Tensor, "batch length vocabulary"]:
        logits = linear(self.scaled(hidden), self.projection(tied, hidden), self.bias)
        cap = self.spec.softcap
        # in place: nothing else holds the logits before the softcap
        return logits if cap is None else by_rows(lambda rows: softcapped(rows, cap), logits, over=True)

    def scaled(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """The input of the projection: after the transform and the factor."""
        hidden = hidden if self.transform is None else self.transform(hidden)
        return hidden if self.factor is None else hidden * self.factor

    def fused(self, prediction: Prediction) -> tuple[Float[Tensor, "batch length in"], Float[Tensor, "vocabulary in"]]:
        """Hidden states and a weight whose product is the logits before bias and softcap."""
        hidden = self.scaled(prediction.hidden)
        return hidden, self.projection(prediction.tied, hidden)

    def projection(self, tied: Tensor | None, hidden: Tensor) -> Float[Tensor, "vocabulary width"]:
        weight = self.weight if tied is None else tied
        assert weight is not None
        if not torch.compiler.is_compiling() and is_sharded(weight) and not is_sharded(hidden):
            found = "a table that is sharded when it is used: fully_shard wrapped the module that holds it separately"
            raise InputError(Problem("head", found, "a model sharded by pairform.shard, which gathers it for the head too"))
        return weight

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        """The fused loss, without logits in memory. With `shift`, each token predicts the next; without, labels are aligned
        with the hidden states."""
        return self.losses(prediction, labels, shift, tokens)[0]

    def losses(
        self,
        prediction: Prediction,
        labels: Tensor,
        shift: bool,
        tokens: Tensor | None = None,
        terms: LossTerms | None = None,
    ) -> tuple[Tensor, LossParts | None]:
        """As `loss`, with further terms: the loss, and its parts if there are `terms`."""
        if shift:
            labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        return linear_losses(*self.fused(prediction), labels, self.spec.softcap, tokens, terms, self.bias)

    def as_teacher(self, prediction: Prediction, weight: float, temperature: float) -> Teacher:
        """A prediction of this head that another model learns from."""
        return Teacher(*self.fused(prediction), self.spec.softcap, weight, temperature, self.bias)


class NoHead(nn.Module):
    """No head: the model outputs hidden states only."""

    class Spec(BlockSpec):
        name: Literal["none"] = "none"
        formula: ClassVar[str] = r"There is no formula: the output is the hidden states."

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Tensor, valid: Tensor | None, tied: Tensor | None) -> None:
        return None

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        raise InputError(Problem("labels", "labels for a model without a head", "a head in the spec", "Or leave them out."))
