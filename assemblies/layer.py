"""A layer: named residual branches around one hidden state."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pairform.assemblies.specs import LayerSpec
from pairform.blocks.context import Context
from pairform.registry import BlockSpec, Sizes, build_block


class Branch(nn.Module):
    """One residual branch: a block and the norms that its placement asks for."""

    def __init__(self, spec: BlockSpec, layer: LayerSpec, sizes: Sizes) -> None:
        super().__init__()
        self.placement = layer.placement
        self.dropout = layer.dropout
        if self.placement in ("pre", "sandwich"):
            self.pre_norm = build_block(layer.norm, sizes, "norm")
        self.block = build_block(spec, sizes, "attention", "feed_forward")
        if self.placement in ("post", "sandwich"):
            self.post_norm = build_block(layer.norm, sizes, "norm")

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        added = self.block(hidden if self.placement == "post" else self.pre_norm(hidden), context)
        if self.placement == "sandwich":
            added = self.post_norm(added)
        summed = hidden + functional.dropout(added, self.dropout, self.training)
        normed: Tensor = self.post_norm(summed) if self.placement == "post" else summed
        return normed


class Layer(nn.Module):
    """The branches of a `LayerSpec`, each a child under its own name, run in order."""

    def __init__(self, spec: LayerSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        for name in spec.present:
            self.add_module(name, Branch(spec.branches[name], spec, sizes))

    def forward(
        self, hidden: Float[Tensor, "batch length width"], context: Context, index: int
    ) -> Float[Tensor, "batch length width"]:
        for name, branch in self.named_children():
            hidden = branch(hidden, context.at(index, name))
        return hidden
