"""Heads that classify tokens, spans or whole sequences."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import Field, Strict
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.dtypes import wide
from pairform.blocks.heads.labels import IGNORED, averaged, check_classes, check_shape
from pairform.blocks.heads.pooled_heads import pooled
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.transform import TransformSpec, transform_of
from pairform.registry import BlockSpec, PositiveInt, Probability, Problem, Sizes


class ProjectionSpec(BlockSpec):
    """Options of heads that project hidden states."""

    dropout: Probability = Field(default=0.0, description="Dropout rate before the projection.")
    bias: bool = Field(default=True, description="Add a learned bias to the projection.")
    transform: TransformSpec | None = Field(
        default=None,
        description="Dense layer, activation and norm before dropout and projection; in BERT's sequence classification tanh "
        "without a norm. Default: none.",
    )

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of outputs."""

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.transform is not None:
            yield from self.transform.check(sizes)


class ClassificationSpec(ProjectionSpec):
    """Options of classification heads."""

    labels: PositiveInt | Annotated[tuple[str, ...], Field(min_length=1), Strict(False)] = Field(
        default=2, description="Number of labels, or a list of their names."
    )

    @property
    def count(self) -> int:
        return self.labels if isinstance(self.labels, int) else len(self.labels)


class ProjectionHead(nn.Module):
    """Base of heads that project hidden states after dropout."""

    def __init__(self, spec: ProjectionSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.transform = transform_of(spec.transform, sizes)
        self.proj = nn.Linear(sizes.width, spec.count, bias=spec.bias)

    def projected(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... outputs"]:
        return self.dropped_and_projected(self.transformed(hidden))

    def transformed(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return hidden if self.transform is None else self.transform(hidden)

    def dropped_and_projected(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... outputs"]:
        outputs: Tensor = self.proj(functional.dropout(hidden, self.spec.dropout, self.training))
        return outputs


class TokenClassificationHead(ProjectionHead):
    """One class per token: logits `[batch, length, labels]`."""

    class Spec(ClassificationSpec):
        name: Literal["token_classification"] = "token_classification"
        formula: ClassVar[str] = r"$$\ell_t = W x_t + b$$"

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

    class Spec(ProjectionSpec):
        pools: ClassVar[bool] = True
        name: Literal["span"] = "span"
        formula: ClassVar[str] = r"""
        $$(\ell^{\mathrm{start}}_t, \ell^{\mathrm{end}}_t) = W x_t + b, \qquad
        P(\mathrm{start} = t) = \frac{\exp(\ell^{\mathrm{start}}_t)}{\sum_r \exp(\ell^{\mathrm{start}}_r)}$$

        and the same for the end.
        """

        @property
        def count(self) -> int:
            return 2

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
        formula: ClassVar[str] = r"$$\ell = W \mathrm{pool}(x_1, \dots, x_n) + b$$"
        pooling: Literal["mean", "first", "last", "late_mean"] = Field(
            default="last",
            description="How the hidden states of the tokens that are not padding become one vector: their mean, the first "
            "(BERT), the last (decoders), or with `late_mean` their mean after the transform (EuroBERT, arXiv 2503.05500).",
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
        if self.spec.pooling == "late_mean":
            return self.dropped_and_projected(pooled(self.transformed(hidden), valid, "mean"))
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
