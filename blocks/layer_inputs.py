"""Inputs of each layer besides its hidden states, from the tokens and their embeddings (Gemma 3n and Gemma 4)."""

from collections.abc import Iterator
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.feedforward import ACTIVATIONS, Activation
from pairform.blocks.functional.initializers import Initial, Normal
from pairform.blocks.functional.linear import Linear
from pairform.registry import LIMIT, BlockSpec, InputError, PositiveInt, Problem, Scales, Sizes, Slot, Spec, build_block


class LayerInputSpec(Spec):
    """A narrow input for each layer, which its hidden states gate (Gemma 3n and 4: per-layer embeddings).

    It is `norm(W e / sqrt(width))` of a token's embedding e, and with a table `(that + row * sqrt(channels)) / sqrt(2)`. After
    its branches, each layer adds `norm(U (activation(V x) * input))` to its hidden states x.
    """

    channels: Annotated[PositiveInt, Scales("width")] = Field(examples=[256], description="Channels of each layer's input.")
    table: bool = Field(default=True, description="Add a row for each token and layer, from one table for all layers.")
    vocabulary: PositiveInt | None = Field(default=None, description="Rows of the table. Default: the stack's vocabulary.")
    activation: Activation = Field(default="gelu_tanh", description="Activation of the gates.")
    norm: Annotated[BlockSpec, Slot("norm")] = Field(
        description="Norm of the projected embeddings, along `channels`, and of what each layer adds."
    )

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from (problem.inside("norm") for problem in self.norm.check(Sizes(self.channels)))
        if sizes.depth * self.channels >= LIMIT:
            found = f"{self.channels} channels in {sizes.depth} layers"
            yield Problem("channels", found, f"fewer than {LIMIT:,} in all layers")
        if self.table and sizes.vocabulary is None:
            yield Problem("table", "true in a stack without token ids", "false: a tower reads pictures")
        if self.vocabulary is not None and not self.table:
            yield Problem("vocabulary", f"{self.vocabulary} without a table", "null")
        elif self.vocabulary is not None and self.vocabulary < (sizes.vocabulary or 0):
            expected = f"{sizes.vocabulary} or more, as the stack has token ids"
            yield Problem("vocabulary", str(self.vocabulary), expected)


class LayerInputs(nn.Module):
    """Makes the inputs of all layers at once."""

    def __init__(self, spec: LayerInputSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.shape = (sizes.depth, spec.channels)
        self.pad = sizes.pad
        everywhere = sizes.depth * spec.channels
        rows = spec.vocabulary or sizes.vocabulary or 0
        self.weight = nn.Parameter(torch.empty(rows, everywhere)) if spec.table else None
        self.projection = Linear(sizes.width, everywhere, bias=False)
        self.factor = sizes.width**-0.5
        self.norm = build_block(spec.norm, Sizes(spec.channels), "norm")

    def initial(self, parameter: str, spread: float) -> Initial:
        return Normal(std=spread)

    def forward(
        self, embedded: Float[Tensor, "batch length width"], ids: Int[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length layers channels"]:
        """The inputs for embeddings, scaled and without positions, of the tokens `ids`."""
        projected: Tensor = self.norm((self.projection(embedded) * self.factor).unflatten(-1, self.shape))
        if self.weight is None:
            return projected
        if ids is None:
            expected = "input_ids: the stack has a table of per-layer inputs by token"
            raise InputError(Problem("inputs_embeds", "embeddings without token ids", expected))
        rows = functional.embedding(ids, self.weight, self.pad)
        # rounded to the dtype first, as in Gemma
        scaled = rows * torch.tensor(self.spec.channels**0.5, dtype=rows.dtype)
        return (projected + scaled.view(*scaled.shape[:-1], *self.shape)) * 2**-0.5


class LayerInput(nn.Module):
    """Adds a layer's input to its hidden states."""

    def __init__(self, spec: LayerInputSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.gate_proj = Linear(sizes.width, spec.channels, bias=False)
        self.up_proj = Linear(spec.channels, sizes.width, bias=False)
        self.norm = build_block(spec.norm, sizes, "norm")

    def forward(
        self, hidden: Float[Tensor, "batch length width"], own: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch length width"]:
        added: Tensor = self.norm(self.up_proj(ACTIVATIONS[self.spec.activation](self.gate_proj(hidden)) * own))
        return hidden + added
