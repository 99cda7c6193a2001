"""Scalings of the RoPE frequencies, for contexts longer than those in training.

Each computes the angle in radians by which every pair of channels is rotated per token, in float32.
"""

from math import ceil, floor, log, pi
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import torch
from jaxtyping import Float, Int
from pydantic import Field, Strict, model_validator
from torch import Tensor

from pairform.registry import PositiveFloat, PositiveInt, Scales, Spec

Stretch = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class DefaultScaling(Spec):
    """Unscaled frequencies `theta ** (-2 i / channels)`."""

    by_length: ClassVar[bool] = False
    """Whether frequencies depend on the number of tokens, so that a prompt cannot be processed in chunks."""

    name: Literal["default"] = "default"

    @property
    def attention_factor(self) -> float:
        """The factor on queries and keys."""
        return 1.0

    def frequencies(
        self,
        theta: float | Float[Tensor, "batch tokens 1"],
        channels: int,
        device: torch.device,
        lengths: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "*batch_and_tokens pairs"]:
        """Radians per token for each of the `channels / 2` pairs. lengths: `Context.lengths`, given where `by_length`."""
        even = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
        return 1.0 / (theta ** (even / channels))


class LinearScaling(DefaultScaling):
    """Every frequency divided by `factor` (position interpolation, Chen et al. 2023, arXiv 2306.15595)."""

    name: Literal["linear"] = "linear"  # type: ignore[assignment]
    factor: PositiveFloat = Field(examples=[8.0], description="Divisor of every frequency.")

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        return super().frequencies(theta, channels, device) / self.factor


class ProportionalScaling(LinearScaling):
    """Only the `fraction` of pairs with the highest frequencies is rotated. The pairs span the whole head, unlike with the
    `fraction` of rope (Gemma 4)."""

    name: Literal["proportional"] = "proportional"  # type: ignore[assignment]
    fraction: Fraction = Field(examples=[0.25], description="Fraction of the pairs that rotates.")
    factor: PositiveFloat = Field(default=1.0, description="Divisor of every frequency.")

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        rotated_pairs = int(self.fraction * channels // 2)
        pairs = torch.arange(channels // 2, device=device)
        return super().frequencies(theta, channels, device).masked_fill(pairs >= rotated_pairs, 0.0)


class LengthScaling(DefaultScaling):
    """Base of the scalings for sequences longer than those of the original training."""

    factor: Stretch = Field(examples=[8.0], description="Divisor of the low frequencies.")
    original_length: PositiveInt = Field(examples=[8192], description="Sequence length in tokens of the original training.")


class DynamicScaling(LengthScaling):
    """NTK-aware scaling: theta grows with the length of a row, or of a document in a packed row, beyond `original_length` (YaRN
    paper, arXiv 2309.00071, 3.3).

    Cached keys keep the rotation of the call that computed them, as in transformers: beyond `original_length`, decoding with
    a cache differs from decoding without one.
    """

    by_length: ClassVar[bool] = True
    name: Literal["dynamic"] = "dynamic"  # type: ignore[assignment]
    factor: Stretch = Field(
        examples=[8.0],
        description="For rows of length n beyond `original_length`, theta is multiplied by `(factor * n / original_length - "
        "factor + 1) ** (channels / (channels - 2))`.",
    )

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        assert lengths is not None, "given where by_length"
        length = lengths.clamp(min=self.original_length).float()[..., None]
        growth = self.factor * length / self.original_length - (self.factor - 1)
        # with this exponent the lowest frequency is divided by exactly `growth`, and the highest stays
        return super().frequencies(theta * growth ** (channels / (channels - 2)), channels, device)


class YarnScaling(LengthScaling):
    """High frequencies stay, low ones are divided by `factor`, with a linear ramp between (YaRN, Peng et al. 2023, arXiv
    2309.00071, sections 3.2 to 3.4)."""

    name: Literal["yarn"] = "yarn"  # type: ignore[assignment]
    beta_fast: PositiveFloat = Field(
        default=32.0, description="Rotations within `original_length` above which a pair keeps its frequency."
    )
    beta_slow: PositiveFloat = Field(
        default=1.0, description="Rotations within `original_length` below which a pair's frequency is divided by `factor`."
    )
    attention: PositiveFloat | None = Field(
        default=None, description="Factor on queries and keys. Default: `0.1 ln(factor) + 1`."
    )
    truncate: bool = Field(default=True, description="Round the ends of the ramp to whole pairs.")

    @property
    def attention_factor(self) -> float:
        return 0.1 * log(self.factor) + 1.0 if self.attention is None else self.attention

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(theta, float), "a spec's"
        plain = super().frequencies(theta, channels, device)
        # the pair, in general a fraction, that rotates this often within `original_length` (section 3.2)
        begin, end = (
            channels * log(self.original_length / (2 * pi * rotations)) / (2 * log(theta))
            for rotations in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            begin, end = floor(begin), ceil(end)
        # channels, not pairs, as in the paper's code and in transformers
        begin, end = max(begin, 0), min(end, channels - 1)
        pairs = torch.arange(channels // 2, dtype=torch.float32, device=device)
        # 0.001 avoids a division by zero, as in transformers
        scaled_share = ((pairs - begin) / (end - begin if end != begin else 0.001)).clamp(0, 1)
        # the share is 1 where a frequency is divided, and 0 where it stays
        return plain / self.factor * scaled_share + plain * (1 - scaled_share)


class Llama3Scaling(LengthScaling):
    """Low frequencies are divided by `factor`, with a smooth transition between two wavelengths (Llama 3.1, arXiv 2407.21783,
    3.4.2)."""

    name: Literal["llama3"] = "llama3"  # type: ignore[assignment]
    low_frequency: PositiveFloat = Field(
        default=1.0, description="Rotations within `original_length` below which a pair's frequency is divided by `factor`."
    )
    high_frequency: PositiveFloat = Field(
        default=4.0, description="Rotations within `original_length` above which a pair keeps its frequency."
    )

    @model_validator(mode="after")
    def _low_before_high(self) -> Self:
        if self.low_frequency >= self.high_frequency:
            raise ValueError(f"low_frequency ({self.low_frequency}) below high_frequency ({self.high_frequency})")
        return self

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        plain = super().frequencies(theta, channels, device)
        # the length over the wavelength, 2 pi / frequency
        rotations = plain * (self.original_length / (2 * pi))
        unscaled = ((rotations - self.low_frequency) / (self.high_frequency - self.low_frequency)).clamp(0, 1)
        return plain / self.factor * (1 - unscaled) + plain * unscaled


Divisors = Annotated[tuple[PositiveFloat, ...], Strict(False), Field(max_length=1 << 14)]


class LongRopeScaling(DefaultScaling):
    """A divisor of its own for every frequency, from one list for short rows (in packed rows, documents) and from another for
    long ones (LongRoPE, Ding et al. 2024, arXiv 2402.13753, section 3; Phi-3).

    `generate` computes the cached keys again when a row becomes longer than `original_length`. Whoever calls the model with a
    cache must do so too: cached keys keep the rotation of the call that computed them.
    """

    by_length: ClassVar[bool] = True
    name: Literal["longrope"] = "longrope"  # type: ignore[assignment]
    short: Annotated[Divisors, Scales("head_pairs")] = Field(
        examples=[[1.0, 1.0, 1.5, 2.0]],
        description="Divisor of the frequency of each pair, in rows of at most `original_length` tokens.",
    )
    long: Annotated[Divisors, Scales("head_pairs")] = Field(
        examples=[[1.0, 2.0, 4.0, 8.0]], description="The same in longer rows."
    )
    original_length: PositiveInt = Field(examples=[4096], description="Sequence length in tokens of the original training.")
    attention: PositiveFloat = Field(default=1.0, description="Factor on queries and keys.")

    @property
    def attention_factor(self) -> float:
        return self.attention

    def frequencies(self, theta: float | Tensor, channels: int, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        short, long = (torch.tensor(divisors, dtype=torch.float32, device=device) for divisors in (self.short, self.long))
        assert lengths is not None, "given where by_length"
        beyond = (lengths > self.original_length)[..., None]
        return super().frequencies(theta, channels, device) / torch.where(beyond, long, short)


Scaling: TypeAlias = Annotated[
    DefaultScaling | LinearScaling | ProportionalScaling | DynamicScaling | YarnScaling | Llama3Scaling | LongRopeScaling,
    Field(discriminator="name"),
]
