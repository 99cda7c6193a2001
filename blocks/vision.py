"""Images: patches as hidden states, and the vision tower's output as embeddings of image tokens."""

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, ClassVar, Literal, Self

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.functional.linear import linear
from pairform.blocks.spec_fields import PictureEmbeddingSpec, ProjectorSpec
from pairform.registry import BlockSpec, InputError, PositiveInt, Problem, Sizes, Slot, build_block


class PatchEmbedding(nn.Module):
    """A square image divided into patches, each projected linearly and added to a learned position (SigLIP, arXiv 2303.15343;
    ViT, arXiv 2010.11929, section 3.1)."""

    class Spec(PictureEmbeddingSpec):
        name: Literal["patches"] = "patches"
        formula: ClassVar[str] = r"""
        $$y_n = W p_n + b + E_n$$

        where $p_n$ are the pixels of patch $n$ as one vector, and $E_n$ is the learned position of the patch.
        """
        image_size: PositiveInt = Field(examples=[224], description="Side of the image in pixels.")
        patch_size: PositiveInt = Field(examples=[16], description="Side of a patch in pixels; divides `image_size`.")
        channels: PositiveInt = Field(default=3, description="Colour channels.")

        @model_validator(mode="after")
        def _patches_fill_the_picture(self) -> Self:
            if self.image_size % self.patch_size:
                raise ValueError(f"patch_size ({self.patch_size}) to divide image_size ({self.image_size})")
            return self

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if sizes.vocabulary is not None:
                yield Problem(
                    "name", "patches for a stack that reads tokens", "an embedding of tokens", "A vision tower has patches."
                )

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(sizes.width, spec.channels, spec.patch_size, spec.patch_size))
        self.bias = nn.Parameter(torch.empty(sizes.width))
        self.position = nn.Parameter(torch.empty((spec.image_size // spec.patch_size) ** 2, sizes.width))

    def forward(self, pixels: Float[Tensor, "pictures channels height width"]) -> Float[Tensor, "pictures patches width"]:
        expected_shape = (self.spec.channels, self.spec.image_size, self.spec.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected_shape:
            expected = f"[pictures, {', '.join(map(str, expected_shape))}]"
            raise InputError(Problem("pixel_values", f"the shape {list(pixels.shape)}", expected))
        # a convolution with its stride as kernel size is the linear projection of each patch
        patches = functional.conv2d(pixels.to(self.weight.dtype), self.weight, self.bias, stride=self.spec.patch_size)
        return rearrange(patches, "n d h w -> n (h w) d") + self.position


class AveragePoolProjector(nn.Module):
    """Neighbouring patches averaged to `tokens` per image, normalised, and projected to the width of the text stack (Gemma 3
    report, arXiv 2503.19786, section 2)."""

    class Spec(ProjectorSpec):
        name: Literal["average_pool"] = "average_pool"
        formula: ClassVar[str] = r"""
        $$y_n = W \mathrm{norm}\left( \frac{1}{\lvert P_n \rvert} \sum_{m \in P_n} x_m \right)$$

        where $P_n$ is square $n$ of neighbouring patches.
        """
        tokens: PositiveInt = Field(
            examples=[49], description="Embeddings per picture: a square number whose root divides the patches' side."
        )
        norm: Annotated[BlockSpec, Slot("norm")] = Field(
            examples=[{"name": "rmsnorm"}], description="Norm of the pooled patches, before the projection."
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            patches = sizes.source_length or 0
            side, kept = isqrt(patches), isqrt(self.tokens)
            if kept**2 != self.tokens or side**2 != patches or side % kept:
                yield Problem(
                    "tokens", f"{self.tokens} tokens of {patches} patches", "a square whose side divides that of the patches"
                )

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.source_width is not None, "the tower's"
        self.spec = spec
        self.norm = build_block(spec.norm, Sizes(sizes.source_width), "norm")
        self.weight = nn.Parameter(torch.empty(sizes.source_width, sizes.width))

    def forward(self, hidden: Float[Tensor, "pictures patches tower_width"]) -> Float[Tensor, "pictures tokens width"]:
        side, kept = isqrt(hidden.shape[1]), isqrt(self.spec.tokens)
        # rows and columns of `kept` windows, each of p times q patches
        pooled = reduce(hidden, "n (h p w q) d -> n (h w) d", "mean", h=kept, w=kept, p=side // kept, q=side // kept)
        projected: Tensor = linear(self.norm(pooled), self.weight.T)
        return projected
