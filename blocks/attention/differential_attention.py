"""Self-attention as the difference of two attention maps."""

from collections.abc import Iterator
from math import exp
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.attention.projections import Read
from pairform.blocks.attention.self_attention import OwnSequenceAttention, OwnSequenceSpec
from pairform.blocks.context import Context
from pairform.blocks.functional.dtypes import wide
from pairform.blocks.functional.initializers import Initial, Normal
from pairform.registry import PositiveFloat, Probability, Problem, Sizes


class DifferentialAttention(OwnSequenceAttention):
    """`softmax(q1 k1) v - lambda softmax(q2 k2) v`, normalised in each pair of heads (Ye et al. 2024, arXiv 2410.05258, 2.1).

    Head i of the first half is paired with head i of the second; the values of a pair have twice the head dimension. lambda is
    learned. Projections and cache have the shapes of self_attention with as many heads.
    """

    class Spec(OwnSequenceSpec):
        name: Literal["differential_attention"] = "differential_attention"
        formula: ClassVar[str] = r"""
        $$y = W_O (1 - \lambda_0) \mathrm{RMSNorm}(A_1 V - \lambda A_2 V)$$

        $$\lambda = \exp(u_1^\top w_1) - \exp(u_2^\top w_2) + \lambda_0, \qquad \lambda_0 = 0.8 - 0.6 e^{-0.3 l}$$

        in each pair of heads of layer $l$, counted from 0: $A_1$ and $A_2$ are the attention weights of the two heads, $V$
        their common values, and $u_1, w_1, u_2, w_2$ learned vectors.
        """
        eps: PositiveFloat = Field(default=1e-5, description="Added to the mean square in the norm of each pair of heads.")
        lambda_init: Probability | None = Field(
            default=None, description="Constant part of lambda. Default: `0.8 - 0.6 exp(-0.3 l)` in layer l, from 0."
        )

        def sited(self, sizes: Sizes) -> dict[str, Any]:
            own = {"lambda_init": lambda_by_depth(sizes.layer)} if self.lambda_init is None else {}
            return super().sited(sizes) | own

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            yield from super().check(sizes)
            if (self.kv_heads or self.heads) % 2:
                name = "heads" if self.kv_heads is None else "kv_heads"
                yield Problem(name, str(self.kv_heads or self.heads), "an even number: differential attention pairs heads")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__(spec, sizes)
        self.spec = spec
        self.lambda_start = lambda_by_depth(sizes.layer) if spec.lambda_init is None else spec.lambda_init
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            self.register_parameter(name, nn.Parameter(torch.empty(self.head_dim)))

    def initial(self, parameter: str, spread: float) -> Initial:
        return Normal(std=0.1 if parameter.startswith("lambda") else spread)

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        queries = self.position(self.queries(hidden), context)
        own = self.own(hidden, context)
        # kernels take values of the key's width, so both halves of the wide values need a call each
        halves = [self.attend(queries, (with_values(own, half),), context) for half in own.values.chunk(2, dim=1)]
        # [batch, heads, length, 2 * head_dim] -> both maps of each pair, [batch, heads / 2, length, 2 * head_dim]
        first, second = torch.cat(halves, dim=-1).chunk(2, dim=1)
        mixed = first - self.share().to(first.dtype) * second
        normed = functional.rms_norm(wide(mixed), mixed.shape[-1:], eps=self.spec.eps).to(mixed.dtype)
        # the factor aligns the gradients with those of ordinary attention (section 2.1)
        return self.output(normed * (1 - self.lambda_start), hidden)

    def share(self) -> Float[Tensor, ""]:
        """lambda, the weight of the second attention map."""
        # the sums and exponentials of equation 2, in at least float32
        first = (wide(self.get_parameter("lambda_q1")) * wide(self.get_parameter("lambda_k1"))).sum().exp()
        second = (wide(self.get_parameter("lambda_q2")) * wide(self.get_parameter("lambda_k2"))).sum().exp()
        return first - second + self.lambda_start


def lambda_by_depth(layer: int) -> float:
    """lambda_init of a layer, counted from 0 (section 2.1)."""
    return 0.8 - 0.6 * exp(-0.3 * layer)


def with_values(read: Read, half: Float[Tensor, "batch half_kv_heads k head_dim"]) -> Read:
    """The keys of `read` with one half of the value heads, repeated for both halves of the key heads."""
    return read._replace(values=half.repeat(1, 2, 1, 1))
