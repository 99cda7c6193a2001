"""The fields and methods of block specs that other parts of the library read, by kind of block.

A block declares the fields that it has, with their constraints. Code that gets a block of any class, also from another package,
reads them through `of`: `HeadSpec.of(spec.head).tie`. Those of attention blocks are `AttentionFields`.
"""

from typing import Literal

from pairform.registry import BlockSpec, PositiveInt, Spec


class HeadSpec(BlockSpec):
    """Of heads. tie: the stack whose embedding table is also the projection."""

    tie: Literal["encoder", "decoder"] | None = None
    scale: Literal["inverse_sqrt_width"] | float | None = None
    softcap: float | None = None
    labels: int | tuple[str, ...] | None = None
    dropout: float = 0.0
    problem: str | None = None
    pooling: str = "last"
    bias: bool | str | None = True
    normalise: bool = True
    transform: Spec | None = None


class FeedForwardFields(BlockSpec):
    """Of feed-forward blocks. wide_output: in float16, the output is in float32."""

    wide_output: bool = False


class TableFields(BlockSpec):
    """Of positions with a learned table, `[buckets, heads]`. shared: it is that of an earlier layer."""

    buckets: int = 0
    shared: bool = False


class PictureEmbeddingSpec(BlockSpec):
    """Of embeddings of images. The sizes, in pixels, are None for embeddings of something else."""

    image_size: PositiveInt | None = None
    patch_size: PositiveInt | None = None
    channels: PositiveInt = 3

    @property
    def patches(self) -> int | None:
        """The number of patches per image."""
        return None if self.image_size is None or self.patch_size is None else (self.image_size // self.patch_size) ** 2


class ProjectorSpec(BlockSpec):
    """Of projectors. tokens: embeddings per image."""

    tokens: int = 0


class BridgeSpec(BlockSpec):
    """Base of the specs of bridges."""

    def source_width(self, encoder_width: int, width: int) -> int:
        """The width of the bridge's output in a decoder of `width`."""
        return encoder_width

    @property
    def source_keys(self) -> Literal["shared", "separate"]:
        """Whether merged attention projects the source with its own key and value weights or with separate ones."""
        return "shared"
