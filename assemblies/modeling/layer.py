"""Layers: named residual branches that update one hidden state."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.assemblies.specs.model import LayerSpec
from pairform.blocks.context import Context
from pairform.blocks.functional.dtypes import clamped
from pairform.blocks.functional.initializers import Constant, Initial
from pairform.blocks.layer_inputs import LayerInput, LayerInputSpec
from pairform.blocks.spec_fields import FeedForwardFields
from pairform.registry import Sizes, build_block


class Branch(nn.Module):
    """One residual branch: a block, its norms according to the placement, and the residual connection."""

    def __init__(self, name: str, layer: LayerSpec, sizes: Sizes) -> None:
        super().__init__()
        norm = layer.norm_of(name)
        self.post = layer.placement == "post"
        self.pre_norm = build_block(norm, sizes, "norm") if layer.placement in ("pre", "sandwich") else None
        self.dropout = layer.dropout
        self.drop_path = 0.0 if layer.drop_path is None else layer.drop_path.at(sizes)
        self.block = build_block(layer.branches[name], sizes, "attention", "feed_forward")
        self.post_norm = None if layer.placement == "pre" else build_block(norm, sizes, "norm")
        self.clamps = any(FeedForwardFields.of(branch).wide_output for branch in layer.branches.values())
        self.residual = build_block(layer.residual, sizes, "residual")
        if hasattr(self.residual, "prepare"):
            self.residual.prepare(self.block)

    def forward(
        self,
        hidden: Float[Tensor, "batch length width"],
        context: Context,
        read: Float[Tensor, "batch length width"] | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """`hidden` after this branch. `read`: the input of the block, if it is not `hidden` (parallel branches)."""
        read = hidden if read is None else read
        pre_norm, post_norm = self.pre_norm, self.post_norm  # read once: torch looks modules up in a dict, in Python
        added = self.block(read if pre_norm is None else pre_norm(read), context)
        if post_norm is not None and not self.post:
            added = post_norm(added)
        if self.dropout and self.training:
            added = functional.dropout(added, self.dropout)
        if self.drop_path and self.training:  # stochastic depth: drops the whole branch, row by row
            # [batch, 1, 1]: 0 or 1 / (1 - rate) for each row
            added = added * functional.dropout(torch.ones_like(added[:, :1, :1]), self.drop_path)
        joined: Tensor = self.residual(hidden, added)
        if self.clamps:
            joined = clamped(joined)
        return post_norm(joined) if post_norm is not None and self.post else joined


class Layer(nn.Module):
    """The branches of a `LayerSpec`, each a submodule of its name, in order. Parallel branches read the same hidden state.

    layer_input: the spec of the input that each layer of the stack has besides its hidden states.
    """

    def __init__(self, spec: LayerSpec, sizes: Sizes, layer_input: LayerInputSpec | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.parallel_groups = spec.parallel_groups
        for name in spec.present:
            self.add_module(name, Branch(name, spec, sizes))
        self.layer_input = None if layer_input is None else LayerInput(layer_input, sizes)
        self.output_scale: nn.Parameter | None = None
        if spec.output_scale is not None:
            self.output_scale = nn.Parameter(torch.empty(1), requires_grad=spec.output_scale == "learned")

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=1.0)

    def forward(
        self,
        hidden: Float[Tensor, "batch length width"],
        context: Context,
        index: int,
        own: Float[Tensor, "batch length channels"] | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """The hidden states after this layer, which is number `index`. own: its input besides them, if the stack has such."""
        for group in self.parallel_groups:  # groups of one, unless the spec has parallel branches
            read = hidden
            for name in group:
                context.place = (index, name)
                hidden = getattr(self, name)(hidden, context, read)
        if self.layer_input is not None:
            hidden = self.layer_input(hidden, own)
        return hidden if self.output_scale is None else hidden * self.output_scale
