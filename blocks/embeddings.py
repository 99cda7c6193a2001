"""From token ids to hidden states."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Sizes


class TokenEmbedding(nn.Module):
    """A row of the table for each token, times `scale`: a number, or `sqrt_width` as in Vaswani et al. 2017, 3.4.

    The factor is rounded to the table's dtype first, as Gemma does. `scale_given` says whether embeddings that a caller
    gives as `inputs_embeds` are multiplied too: T5Gemma does, Gemma 2 does not.

    end_of_image: an id whose embedding is a row of its own, not scaled; T5Gemma 2 adds it (arXiv 2512.14856, section 2). Small
    models of that family have the row and no such id, so it may lie beyond the vocabulary.

    The row of the padding token is not trained by being read, as in transformers: it stands at zero there, where norms
    have steep gradients that mean nothing.
    """

    class Spec(BlockSpec):
        name: Literal["token"] = "token"
        scale: Literal["sqrt_width"] | PositiveFloat = 1.0
        scale_given: bool = False
        end_of_image: Annotated[int, Field(ge=0)] | None = None

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.vocabulary is not None, "given by every model"
        self.spec = spec
        self.pad = sizes.pad
        self.factor = sizes.width**0.5 if spec.scale == "sqrt_width" else spec.scale
        self.weight = nn.Parameter(torch.empty(sizes.vocabulary, sizes.width))
        self.end_of_image = None if spec.end_of_image is None else nn.Parameter(torch.empty(sizes.width))

    def forward(self, token_ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        embedded: Tensor = self.scaled(functional.embedding(token_ids, self.weight, self.pad))
        if self.end_of_image is None or self.spec.end_of_image is None:
            return embedded
        return torch.where(token_ids.eq(self.spec.end_of_image)[..., None], self.end_of_image, embedded)

    def given(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """What `inputs_embeds` become."""
        return self.scaled(embeds) if self.spec.scale_given else embeds

    def scaled(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return embeds if self.factor == 1.0 else embeds * torch.tensor(self.factor, dtype=embeds.dtype)


class FactorisedEmbedding(nn.Module):
    """A row of a narrow table for each token, projected to the width and times `scale` (ALBERT; Lan et al. 2020, arXiv
    1909.11942, section 3.1). A head that is tied to it goes back the same way: to the rank, then to the vocabulary.

    rank: the table's width. scale, scale_given: as of `token`.
    """

    class Spec(BlockSpec):
        name: Literal["factorised"] = "factorised"
        rank: PositiveInt
        scale: Literal["sqrt_width"] | PositiveFloat = 1.0
        scale_given: bool = False

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.vocabulary is not None, "given by every model"
        self.spec = spec
        self.pad = sizes.pad
        self.factor = sizes.width**0.5 if spec.scale == "sqrt_width" else spec.scale
        self.weight = nn.Parameter(torch.empty(sizes.vocabulary, spec.rank))
        self.projection = nn.Parameter(torch.empty(sizes.width, spec.rank))

    def forward(self, token_ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        return self.factor * functional.linear(functional.embedding(token_ids, self.weight, self.pad), self.projection)

    def given(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """What `inputs_embeds` become."""
        return self.factor * embeds if self.spec.scale_given else embeds

    def lower(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... rank"]:
        """What a tied head multiplies with the table."""
        return hidden @ self.projection
