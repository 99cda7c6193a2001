"""The head of masked language models."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pairform.blocks.functional.linear import linear
from pairform.blocks.heads.linear_cross_entropy import linear_losses
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.transform import TransformSpec, transform_of
from pairform.registry import BlockSpec, Problem, Sizes


class MaskedLMHead(nn.Module):
    """Logits over the vocabulary for the token at each position (BERT; Devlin et al. 2019, arXiv 1810.04805, section 3.1):
    `[batch, length, vocabulary]`.

    Labels, `[batch, length]`, are the tokens at their own positions, and -100 where the input was not masked.
    """

    class Spec(BlockSpec):
        name: Literal["masked_lm"] = "masked_lm"
        formula: ClassVar[str] = r"""
        $$\ell = W x + b$$

        With `tie`, $W$ is the embedding table. A transform maps $x$ to $\mathrm{norm}(\phi(W' x + b'))$ first.
        """
        tie: Literal["encoder", "decoder"] | None = Field(
            default=None,
            description="Stack whose embedding table is also the projection (tied embeddings). Default: the head has its own.",
        )
        transform: TransformSpec | None = Field(
            default=None, description="Dense layer, activation and norm before the projection. Default: none."
        )
        bias: bool = Field(default=True, description="Add a learned bias to the logits.")

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if self.transform is not None:
                yield from self.transform.check(sizes)

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.vocabulary is not None, "given by every model"
        self.spec = spec
        self.transform = transform_of(spec.transform, sizes)
        self.weight = None if spec.tie else nn.Parameter(torch.empty(sizes.vocabulary, sizes.width))
        self.bias = nn.Parameter(torch.empty(sizes.vocabulary)) if spec.bias else None

    def forward(
        self, hidden: Float[Tensor, "batch length width"], valid: Tensor | None, tied: Tensor | None
    ) -> Float[Tensor, "batch length vocabulary"]:
        return linear(self.transformed(hidden), self.projection(tied), self.bias)

    def transformed(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return hidden if self.transform is None else self.transform(hidden)

    def projection(self, tied: Tensor | None) -> Float[Tensor, "vocabulary width"]:
        weight = self.weight if tied is None else tied
        assert weight is not None
        return weight

    def loss(self, prediction: Prediction, labels: Tensor, shift: bool, tokens: Tensor | None = None) -> Tensor:
        """The fused loss, without logits in memory, over the labels that are not ignored."""
        hidden = self.transformed(prediction.hidden)
        return linear_losses(hidden, self.projection(prediction.tied), labels, None, tokens, bias=self.bias)[0]
