"""Define and register a block. Specs can then use it like the blocks that come with pairform."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

import pairform
from pairform.blocks.functional.initializers import Constant


@pairform.register("norm")
class MaxNorm(nn.Module):
    """`g * x / max |x|` with one learned gain g, so that no output is larger than g."""

    class Spec(pairform.BlockSpec):
        name: Literal["maxnorm"] = "maxnorm"
        eps: float = Field(default=1e-5, description="Lower bound of the norm that is divided by.")

    def __init__(self, spec: Spec, sizes: pairform.Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.gain = nn.Parameter(torch.empty(1))

    def initial(self, parameter: str, spread: float) -> Constant:
        return Constant(value=1.0)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.gain * nn.functional.normalize(hidden, p=torch.inf, dim=-1, eps=self.spec.eps)


SPEC = {"extends": "t5gemma-s-s", "vocabulary": 1024, "decoder": {"depth": 2, "layer": {"norm": {"name": "maxnorm"}}}}

if __name__ == "__main__":
    print("norms:", ", ".join(pairform.blocks("norm")))
    model = pairform.build(SPEC, seed=0)
    print("the first one:", model.get_submodule("decoder.layers.0.self_attention.pre_norm"))
    print("logits:", tuple(model(torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[2, 8]])).logits.shape))
