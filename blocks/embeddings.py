"""Token embeddings: `[batch, length]` token IDs to `[batch, length, width]` hidden states."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.linear import linear
from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Problem, Scales, Sizes, Slot, build_block


class TokenEmbeddingSpec(BlockSpec):
    """Options of every token embedding."""

    scale: Literal["sqrt_width"] | PositiveFloat = Field(
        default=1.0,
        description="Factor on the embeddings, rounded to their dtype first as Gemma does. `sqrt_width`: the square root of "
        "the width (Vaswani et al. 2017, section 3.4).",
    )
    scale_given: bool = Field(
        default=False, description="Also scale embeddings passed as `inputs_embeds`: T5Gemma does, Gemma 2 does not."
    )
    train_pad: bool = Field(
        default=False,
        description="Let the padding token's row receive gradients when it is read: T5's does, since its decoder starts with "
        "it. Otherwise it gets none, as in transformers: the row is zero there, where a norm's gradients are steep and carry "
        "no information.",
    )
    norm: Annotated[BlockSpec, Slot("norm")] | None = Field(
        default=None,
        description="Norm of the scaled embeddings, and of embeddings passed as `inputs_embeds` (Peri-LN, arXiv 2502.02732; "
        "BLOOM, arXiv 2211.05100, section 3.2.2). Default: none.",
    )

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        if self.norm is not None:
            yield from (problem.inside("norm") for problem in self.norm.check(sizes))


class TableEmbedding(nn.Embedding):
    """Base of token embeddings, in two steps: `forward`, which adapters of `nn.Embedding` can change, and `finished`."""

    def __init__(self, spec: TokenEmbeddingSpec, sizes: Sizes, width: int) -> None:
        assert sizes.vocabulary is not None, "given by every model"
        super().__init__(sizes.vocabulary, width, padding_idx=None if spec.train_pad else sizes.pad)
        self.scale_given = spec.scale_given
        self.factor = sizes.width**0.5 if spec.scale == "sqrt_width" else spec.scale
        self.norm = None if spec.norm is None else build_block(spec.norm, sizes, "norm")

    def finished(
        self, rows: Float[Tensor, "batch length table_width"], token_ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """The hidden states of `token_ids`, for which `forward` returned `rows`."""
        return self.given(rows)

    def given(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """The hidden states for `inputs_embeds`: normalised, and scaled if the spec says so."""
        return self.normed(self.scaled(embeds) if self.scale_given else embeds)

    def scaled(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        # rounded to the dtype first, as in Gemma; a tensor on the CPU multiplies on any device without synchronisation
        return embeds if self.factor == 1.0 else embeds * torch.tensor(self.factor, dtype=embeds.dtype)

    def normed(self, embeds: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return embeds if self.norm is None else self.norm(embeds)


class TokenEmbedding(TableEmbedding):
    """A row of the table for each token, times `scale`. `forward` returns what a model takes as `inputs_embeds`."""

    class Spec(TokenEmbeddingSpec):
        name: Literal["token"] = "token"
        formula: ClassVar[str] = r"""
        $$y = s E_t$$

        where $E_t$ is the row of the table for token $t$, and $s$ the `scale`.
        """
        end_of_image: Annotated[int, Field(ge=0)] | None = Field(
            default=None,
            description="Token id with an embedding of its own that is not scaled, as in T5Gemma 2 (arXiv 2512.14856, section "
            "2). May exceed the vocabulary: that family's small models have the embedding but not the id.",
        )

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, sizes.width)
        self.spec = spec
        self.end_of_image = None if spec.end_of_image is None else nn.Parameter(torch.empty(sizes.width))

    @property
    def embed_scale(self) -> float:
        """The factor of `forward`, by which PEFT multiplies what an adapter adds."""
        return 1.0 if self.scale_given else self.factor

    def forward(self, token_ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        rows = super().forward(token_ids)
        return rows if self.scale_given else self.scaled(rows)

    def finished(
        self, rows: Float[Tensor, "batch length width"], token_ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        embedded = self.scaled(rows) if self.scale_given else rows
        if self.end_of_image is not None and self.spec.end_of_image is not None:
            # after the scaling: this embedding is not scaled
            embedded = torch.where(token_ids.eq(self.spec.end_of_image)[..., None], self.end_of_image, embedded)
        return self.normed(embedded)


class FactorisedEmbedding(TableEmbedding):
    """A row of a narrow table for each token, projected to the width and times `scale` (ALBERT; Lan et al. 2020, arXiv
    1909.11942, section 3.1). A tied head applies the transposes in reverse order: to the rank, then to the vocabulary."""

    class Spec(TokenEmbeddingSpec):
        name: Literal["factorised"] = "factorised"
        formula: ClassVar[str] = r"""
        $$y = s W E_t$$

        where $E_t$ is the row of the table for token $t$, of `rank` channels, and $s$ the `scale`.
        """
        rank: Annotated[PositiveInt, Scales("width")] = Field(examples=[128], description="Width of the table.")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes, spec.rank)
        self.spec = spec
        self.projection = nn.Parameter(torch.empty(sizes.width, spec.rank))

    def finished(
        self, rows: Float[Tensor, "batch length rank"], token_ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        return self.normed(self.scaled(linear(rows, self.projection)))

    def lower(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... rank"]:
        """The hidden states in the rank of the table, for a tied head to multiply with it."""
        return linear(hidden, self.projection.T)


class TokenTypes(nn.Module):
    """A learned vector for each token type, added to the embeddings (BERT's segment embeddings)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))

    def forward(
        self, embedded: Float[Tensor, "batch length width"], types: Int[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length width"]:
        """`embedded` with the vectors of `types`; None: all of type 0."""
        return embedded + (self.weight[0] if types is None else functional.embedding(types, self.weight))
