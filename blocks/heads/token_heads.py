"""Heads: from the last hidden states to logits and loss.

The `forward(hidden, valid, tied)` of a head takes `[batch, length, width]`, the padding mask (False at padding) and, with tied
embeddings, the table. Its `loss(prediction, labels, shift, tokens=None)` equals that of the same head in transformers, a mean
over the labels that count; with `tokens`, a number in a tensor, it is their sum divided by that number. It is computed from the
prediction's logits or from its hidden states. A spec class with `pools = True` has one output per row, so that packed rows are
rejected.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, Strict
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.blocked_ops import by_rows
from pairform.blocks.functional.dtypes import is_sharded, wide
from pairform.blocks.functional.linear import linear
from pairform.blocks.heads.labels import IGNORED, averaged, check_classes, check_shape
from pairform.blocks.heads.linear_cross_entropy import linear_losses
from pairform.blocks.heads.loss_terms import LossParts, LossTerms, Teacher
from pairform.blocks.heads.pooled_heads import pooled
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.transform import TransformSpec, transform_of
from pairform.registry import BlockSpec, InputError, PositiveFloat, PositiveInt, Probability, Problem, Sizes


class LMHead(nn.Module):
    """Logits over the vocabulary, with a softcap `softcap * tanh(logits / softcap)` if it is set."""

    class Spec(BlockSpec):
        name: Literal["lm"] = "lm"
        tie: Literal["encoder", "decoder"] | None = Field(
            default=None,
            description="Stack whose embedding table is also the projection (tied embeddings). Default: the head has its own.",
        )
        scale: Literal["inverse_sqrt_width"] | PositiveFloat | None = Field(
            default=None,
            description="Factor on the hidden states before the projection. `inverse_sqrt_width`: `width ** -0.5`, as T5 does "
            "with tied embeddings (Raffel et al. 2020, arXiv 1910.10683, and its code). Default: none.",
        )
        softcap: PositiveFloat | None = Field(default=None, description="Limit of the logits' absolute value. Default: none.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.vocabulary is not None, "given by every model"
        self.spec = spec
        self.factor = sizes.width**-0.5 if spec.scale == "inverse_sqrt_width" else spec.scale
        self.weight = None if spec.tie else nn.Parameter(torch.empty(sizes.vocabulary, sizes.width))

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Tensor | None, tied: Tensor | None
    ) -> Float[Tensor, "batch length vocabulary"]:
        logits = linear(self.scaled(hidden), self.projection(tied, hidden))
        cap = self.spec.softcap
        # in place: nothing else holds the logits before the softcap
        return logits if cap is None else by_rows(lambda rows: torch.tanh(rows / cap) * cap, logits, over=True)

    def scaled(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return hidden if self.factor is None else hidden * self.factor

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
        hidden = self.scaled(prediction.hidden)
        return linear_losses(hidden, self.projection(prediction.tied, hidden), labels, self.spec.softcap, tokens, terms)

    def as_teacher(self, prediction: Prediction, weight: float, temperature: float) -> Teacher:
        """A prediction of this head that another model learns from."""
        hidden = self.scaled(prediction.hidden)
        return Teacher(hidden, self.projection(prediction.tied, hidden), self.spec.softcap, weight, temperature)


class ClassificationSpec(BlockSpec):
    """Options of classification heads."""

    labels: PositiveInt | Annotated[tuple[str, ...], Field(min_length=1), Strict(False)] = Field(
        default=2, description="Number of labels, or a list of their names."
    )
    dropout: Probability = Field(default=0.0, description="Dropout rate before the projection.")
    bias: bool = Field(default=True, description="Add a learned bias to the projection.")
    transform: TransformSpec | None = Field(
        default=None,
        description="Dense layer, activation and norm before dropout and projection; in BERT's sequence classification tanh "
        "without a norm. Default: none.",
    )

    @property
    def count(self) -> int:
        return self.labels if isinstance(self.labels, int) else len(self.labels)

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.transform is not None:
            yield from self.transform.check(sizes)


class ProjectionHead(nn.Module):
    """Base of heads that project hidden states after dropout."""

    def __init__(self, spec: "ClassificationSpec | SpanHead.Spec", sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.transform = transform_of(spec.transform, sizes) if isinstance(spec, ClassificationSpec) else None
        self.proj = nn.Linear(sizes.width, spec.count, bias=spec.bias)

    def projected(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... outputs"]:
        hidden = hidden if self.transform is None else self.transform(hidden)
        outputs: Tensor = self.proj(functional.dropout(hidden, self.spec.dropout, self.training))
        return outputs


class TokenClassificationHead(ProjectionHead):
    """One class per token: logits `[batch, length, labels]`."""

    class Spec(ClassificationSpec):
        name: Literal["token_classification"] = "token_classification"

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Tensor | None, tied: Tensor | None
    ) -> Float[Tensor, "batch length labels"]:
        return self.projected(hidden)

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in at least float32 over the labels that are not ignored."""
        logits = wide(prediction.logits)
        labels = check_classes(labels, tuple(logits.shape[:-1]), logits.shape[-1], "[batch, length], one for each token")
        flat = logits.flatten(0, 1), labels.flatten()
        return averaged(functional.cross_entropy, *flat, tokens=tokens, ignore_index=IGNORED)


class SpanHead(ProjectionHead):
    """Start and end of a span of the sequence, as in extractive question answering: logits `[batch, length, 2]` (BERT; Devlin
    et al. 2019, arXiv 1810.04805, section 4.2).

    Labels, `[batch, 2]`, are the positions of the first and the last token of the span, counting padding. Positions beyond the
    sequence and -100 are ignored.
    """

    class Spec(BlockSpec):
        pools: ClassVar[bool] = True
        count: ClassVar[int] = 2
        name: Literal["span"] = "span"
        dropout: Probability = Field(default=0.0, description="Dropout rate before the projection.")
        bias: bool = Field(default=True, description="Add a learned bias to the projection.")

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Tensor | None, tied: Tensor | None
    ) -> Float[Tensor, "batch length 2"]:
        return self.projected(hidden)

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        """The mean of the cross-entropies of start and end over all positions. Both are labels: `tokens` counts two a row."""
        labels = check_classes(labels, (len(prediction.hidden), 2), None, "start, end")
        starts, ends = wide(prediction.logits).unbind(-1)
        places = labels.masked_fill(labels >= starts.shape[1], IGNORED)
        of_start, of_end = (
            averaged(functional.cross_entropy, scores, place, tokens=tokens, ignore_index=IGNORED)
            for scores, place in ((starts, places[:, 0]), (ends, places[:, 1]))
        )
        return (of_start + of_end) / (2 if tokens is None else 1)


class SequenceClassificationHead(ProjectionHead):
    """One class per sequence, by default computed from its last token that is not padding: logits `[batch, labels]`."""

    class Spec(ClassificationSpec):
        pools: ClassVar[bool] = True
        name: Literal["sequence_classification"] = "sequence_classification"
        pooling: Literal["mean", "first", "last"] = Field(
            default="last",
            description="How the hidden states of the tokens that are not padding become one vector: their mean, the first "
            "(BERT) or the last (decoders).",
        )
        problem: Literal["regression", "single_label", "multi_label"] | None = Field(
            default=None,
            description="What the labels are. Default: regression if there is one label, else single_label for integer labels "
            "and multi_label for floats.",
        )

    spec: Spec

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Bool[Tensor, "batch length"] | None, tied: Tensor | None
    ) -> Float[Tensor, "batch labels"]:
        return self.projected(pooled(hidden, valid, self.spec.pooling))

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        logits, problem = wide(prediction.logits), self.spec.problem
        if problem is None:
            whole = not labels.is_floating_point()
            problem = "regression" if self.spec.count == 1 else "single_label" if whole else "multi_label"
        rows, count = logits.shape
        if problem != "multi_label" and labels.shape == (rows, 1):
            labels = labels[:, 0]
        if problem == "single_label":
            classes = check_classes(labels, (rows,), count, "[batch], one for each row")
            return averaged(functional.cross_entropy, logits, classes, tokens=tokens)
        if problem == "regression":
            check_shape(labels, (rows,) if count == 1 else (rows, count), "a number for each row and output")
            return averaged(functional.mse_loss, logits.reshape(labels.shape), labels.to(logits.dtype), tokens=tokens)
        check_shape(labels, (rows, count), "[batch, labels], 1 where a label holds")
        loss = functional.binary_cross_entropy_with_logits
        return averaged(loss, logits, labels.to(logits.dtype), tokens=tokens)


class NoHead(nn.Module):
    """No head: the model outputs hidden states only."""

    class Spec(BlockSpec):
        name: Literal["none"] = "none"

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Tensor, valid: Tensor | None, tied: Tensor | None) -> None:
        return None

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        raise InputError(Problem("labels", "labels for a model without a head", "a head in the spec", "Or leave them out."))
