"""A block of one's own: registered under a name, it stands in specs like those that come with pairform."""

from typing import Literal

import torch
from torch import Tensor, nn

import pairform
from pairform.blocks.initial import Constant


@pairform.register("norm")
class ScaleNorm(nn.Module):
    """`g * x / |x|` with one learnt g, at first sqrt(width) (Nguyen and Salazar 2019, arXiv 1910.05895, section 2.2)."""

    class Spec(pairform.BlockSpec):
        name: Literal["scalenorm"] = "scalenorm"
        eps: float = 1e-5

    def __init__(self, spec: Spec, sizes: pairform.Sizes) -> None:
        super().__init__()
        self.spec, self.width = spec, sizes.width
        self.gain = nn.Parameter(torch.empty(1))

    def initial(self, parameter: str, spread: float) -> Constant:
        return Constant(value=self.width**0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.gain * nn.functional.normalize(hidden, dim=-1, eps=self.spec.eps)


SPEC = {"extends": "t5gemma-s-s", "vocabulary": 1024, "decoder": {"depth": 2, "layer": {"norm": {"name": "scalenorm"}}}}

if __name__ == "__main__":
    print("norms:", ", ".join(pairform.blocks("norm")))
    model = pairform.build(SPEC, seed=0)
    print("the first one:", model.get_submodule("decoder.layers.0.self_attention.pre_norm"))
    print("logits:", tuple(model(torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[2, 8]])).logits.shape))
