"""Sentence embeddings, and contrastive training of them."""

from collections.abc import Iterator
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.dtypes import wide
from pairform.blocks.functional.initializers import Constant, Initial
from pairform.blocks.heads.labels import IGNORED, averaged, check_classes
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.transform import WideTransformSpec, transform_of
from pairform.registry import BlockSpec, InputError, PositiveFloat, PositiveInt, Problem, Scales, Sizes


def pooled(
    hidden: Float[Tensor, "batch length width"], valid: Bool[Tensor, "batch length"] | None, pooling: str
) -> Float[Tensor, "batch width"]:
    """The hidden states of tokens that are not padding, pooled by "mean", "first" or "last"."""
    if valid is None:
        valid = hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
    if pooling == "mean":
        weights = wide(valid.to(hidden.dtype))[..., None]
        return ((wide(hidden) * weights).sum(1) / weights.sum(1).clamp(min=1)).to(hidden.dtype)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    # the largest position that is not padding, or the first: argmax returns the first of equal values
    place = (places * valid).argmax(-1) if pooling == "last" else valid.long().argmax(-1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


class SentenceEmbeddingSpec(BlockSpec):
    """Options of heads that pool a sequence to one vector."""

    pools: ClassVar[bool] = True
    pooling: Literal["mean", "first", "last"] = Field(
        default="mean",
        description="How the hidden states of the tokens that are not padding become one vector (Reimers and Gurevych 2019, "
        "arXiv 1908.10084, section 3): their mean, the first or the last.",
    )
    projection: Annotated[PositiveInt | None, Scales("width")] = Field(
        default=None,
        description="Width of the embedding. Default: that of the stack or of the transform, without a projection.",
    )
    transform: WideTransformSpec | None = Field(
        default=None,
        description="Dense layer, activation and norm after pooling. With the first token and tanh this is BERT's pooler. "
        "Default: none.",
    )
    normalise: bool = Field(
        default=True, description="Scale the vectors to length one, so that their dot products are cosines."
    )

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.transform is not None:
            yield from self.transform.check(sizes)


class SentenceEmbeddingHead(nn.Module):
    """One vector per sequence: logits `[batch, width or projection]`. It has no loss; train with the head `contrastive`."""

    class Spec(SentenceEmbeddingSpec):
        name: Literal["sentence_embedding"] = "sentence_embedding"
        formula: ClassVar[str] = r"""
        $$y = \frac{u}{\lVert u \rVert_2}, \qquad u = W \mathrm{pool}(x_1, \dots, x_n)$$

        Without `projection` there is no $W$, without `normalise` the output is $u$.
        """

    def __init__(self, spec: SentenceEmbeddingSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.transform = transform_of(spec.transform, sizes)
        width = sizes.width if spec.transform is None else spec.transform.out(sizes)
        self.proj = None if spec.projection is None else nn.Linear(width, spec.projection, bias=False)

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Bool[Tensor, "batch length"] | None, tied: Tensor | None
    ) -> Float[Tensor, "batch size"]:
        vectors = pooled(hidden, valid, self.spec.pooling)
        vectors = vectors if self.transform is None else self.transform(vectors)
        if self.proj is not None:
            vectors = self.proj(vectors)
        return functional.normalize(wide(vectors), dim=-1).to(vectors.dtype) if self.spec.normalise else vectors

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        raise InputError(
            Problem("labels", "labels for the head sentence_embedding", "none", "Train with the head contrastive.")
        )


class ContrastiveHead(SentenceEmbeddingHead):
    """`sentence_embedding` trained with in-batch negatives (InfoNCE; van den Oord et al. 2018, arXiv 1807.03748, section 2.3;
    within a batch as in SimCLR, arXiv 2002.05709, section 2.1).

    Both sides of a pair are rows of one batch. `labels`, `[batch]`, gives for each row the number of its positive row. A row
    with the label -100 has no positive and serves only as a (hard) negative for the others.
    """

    class Spec(SentenceEmbeddingSpec):
        name: Literal["contrastive"] = "contrastive"
        formula: ClassVar[str] = r"""
        $$\mathcal{L} = -\frac{1}{B} \sum_i \ln \frac{\exp(y_i^\top y_{p(i)} / \tau)}
        {\sum_{j \ne i} \exp(y_i^\top y_j / \tau)}$$

        for $B$ rows with a positive row $p(i)$; $y_i$ is the embedding of row $i$, and $\tau$ the temperature.
        """
        temperature: PositiveFloat = Field(
            default=0.07, description="Divisor of the dot products, or the initial value of a learned one."
        )
        learned: bool = Field(default=True, description="Learn the temperature, as its logarithm.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.temperature = spec.temperature
        self.log_temperature = nn.Parameter(torch.empty(1)) if spec.learned else None

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=log(self.temperature))

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of each row's positive among all other rows."""
        vectors = wide(prediction.logits)
        labels = check_classes(labels, (len(vectors),), len(vectors), "the number of each row's positive")
        # a vector is not a candidate for itself
        same = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        temperature = self.temperature if self.log_temperature is None else wide(self.log_temperature).exp()
        scores = (vectors @ vectors.T / temperature).masked_fill(same, -torch.inf)
        return averaged(functional.cross_entropy, scores, labels, tokens=tokens, ignore_index=IGNORED)
