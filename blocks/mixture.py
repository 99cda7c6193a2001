"""Mixture of experts: several feed-forward blocks, of which a router chooses some for each token."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.context import Context
from pairform.blocks.functional.dtypes import uncast, wide
from pairform.blocks.functional.initializers import Constant, Initial, Normal
from pairform.blocks.functional.outline import repeated
from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Problem, Sizes, Slot, build_block

MOST_EXPERTS = 2048
"""The number of experts of Switch-C (Fedus et al. 2021, arXiv 2101.03961); each is a module."""
Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Norm = Annotated[BlockSpec, Slot("norm")]
NORMS = ("router_norm", "pre_norm", "post_norm", "shared_pre_norm", "shared_post_norm", "output_norm")


class MixtureOfExperts(nn.Module):
    """Each token is processed by the `top_k` experts with the highest router weights (Shazeer et al. 2017, arXiv 1701.06538,
    section 2). No token is dropped (MegaBlocks, arXiv 2211.15841, section 3). The router computes in at least float32.

    With norms of its own, the experts and a dense block (`shared`) are two sides that read the same hidden states, as in
    Gemma 4 26B-A4B. The norm of the branch in the layer's `norms` is then `none`.

    In compiled code every expert processes every token, since sizes that depend on the router would break the graph.
    """

    class Spec(BlockSpec):
        name: Literal["mixture"] = "mixture"
        formula: ClassVar[str] = r"""
        $$p = \mathrm{softmax}(W x), \qquad y = \sum_{e \in T} \frac{p_e}{\sum_{r \in T} p_r} E_e(x) + E_{\mathrm{shared}}(x)$$

        where $T$ are the `top_k` experts with the largest $p_e$. Without `normalise` the weights are $p_e$, and without
        `shared` the last term is absent. Norms and scales are left out here.
        """
        experts: Annotated[int, Field(gt=0, le=MOST_EXPERTS)] = Field(examples=[8], description="Number of experts.")
        top_k: PositiveInt = Field(default=2, description="Experts that process each token.")
        expert: Annotated[BlockSpec, Slot("feed_forward")] = Field(
            examples=[{"name": "gated", "hidden": 512}], description="Feed-forward block of each expert."
        )
        shared: Annotated[BlockSpec, Slot("feed_forward")] | None = Field(
            default=None,
            description="Feed-forward block that processes every token, added to its experts' output (DeepSeekMoE, arXiv "
            "2401.06066, section 3.2). Default: none.",
        )
        normalise: bool = Field(
            default=True,
            description="Divide the chosen experts' weights by their sum (Mixtral, arXiv 2401.04088, section 2.1).",
        )
        expert_scale: bool = Field(
            default=False, description="Learn a factor for each expert on its weights, after they are normalised (Gemma 4)."
        )
        router_norm: Norm | None = Field(
            default=None, description="Norm of the hidden states that the router reads. Default: none."
        )
        router_scale: Literal["inverse_sqrt_width"] | PositiveFloat | None = Field(
            default=None, description="Factor on the router's logits. Default: none."
        )
        pre_norm: Norm | None = Field(
            default=None, description="Norm of the hidden states that the experts read; the router does not. Default: none."
        )
        post_norm: Norm | None = Field(default=None, description="Norm of the sum of the experts' output. Default: none.")
        shared_pre_norm: Norm | None = Field(
            default=None, description="Norm of the hidden states that `shared` reads. Default: none."
        )
        shared_post_norm: Norm | None = Field(default=None, description="Norm of the output of `shared`. Default: none.")
        output_norm: Norm | None = Field(default=None, description="Norm of the sum of both. Default: none.")
        balance: Coefficient = Field(
            default=0.01,
            description="Coefficient of the load-balancing loss `experts * sum_i f_i P_i`: f_i is the fraction of all choices "
            "that fall on expert i, P_i its mean weight over tokens that are not padding; the sum is 1 for an even load "
            "(Switch, arXiv 2101.03961, section 2.2). In a decoder that reads its labels shifted right, positions with an "
            "ignored label count as padding.",
        )
        z_loss: Coefficient = Field(
            default=0.0,
            description="Coefficient of the mean square of the router's log-sum-exp (ST-MoE, arXiv 2202.08906, section 3.3).",
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if self.top_k > self.experts:
                yield Problem("top_k", str(self.top_k), f"at most {self.experts}, the number of experts")
            for name, spec in {"expert": self.expert, "shared": self.shared}.items():
                if isinstance(spec, MixtureOfExperts.Spec):
                    yield Problem(name, "a mixture inside a mixture", "a feed-forward block without experts")
                elif spec is not None:
                    yield from (problem.inside(name) for problem in spec.check(sizes))
            for name in NORMS:
                norm = getattr(self, name)
                if norm is not None and self.shared is None and name.startswith("shared"):
                    yield Problem(name, f"{norm.name!r} without a shared block", "none, or a block as `shared`")
                elif norm is not None:
                    yield from (problem.inside(name) for problem in norm.check(sizes))

        def sited(self, sizes: Sizes) -> dict[str, Any]:
            parts = {"expert": self.expert, "shared": self.shared}
            found = {name: {} if spec is None else spec.sited(sizes) for name, spec in parts.items()}
            return {name: patch for name, patch in found.items() if patch}

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.router = nn.Parameter(torch.empty(spec.experts, sizes.width))
        self.experts = repeated(lambda: build_block(spec.expert, sizes, "feed_forward"), spec.experts)
        self.shared = None if spec.shared is None else build_block(spec.shared, sizes, "feed_forward")
        self.router_scale = sizes.width**-0.5 if spec.router_scale == "inverse_sqrt_width" else spec.router_scale
        self.expert_scale = nn.Parameter(torch.empty(spec.experts)) if spec.expert_scale else None
        self.router_norm = built(spec.router_norm, sizes)
        self.pre_norm, self.post_norm = built(spec.pre_norm, sizes), built(spec.post_norm, sizes)
        self.shared_pre_norm = built(spec.shared_pre_norm, sizes)
        self.shared_post_norm = built(spec.shared_post_norm, sizes)
        self.output_norm = built(spec.output_norm, sizes)

    def initial(self, parameter: str, spread: float) -> Initial:
        return Constant(value=1.0) if parameter == "expert_scale" else Normal(std=spread)

    @property
    def idle_parameters(self) -> int:
        """The number of parameters in the experts that do not process a given token."""
        each = sum(parameter.numel() for parameter in self.experts[0].parameters())
        return (self.spec.experts - self.spec.top_k) * each

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        chosen, experts = self.route(hidden, context)
        read = normed(self.pre_norm, hidden)
        if torch.compiler.is_compiling():  # every expert on every token, with a weight of zero for those not chosen
            mixed = torch.zeros_like(hidden)
            for number, expert in enumerate(self.experts):
                mixed = mixed + expert(read, context) * (chosen * experts.eq(number)).sum(-1, keepdim=True)
        else:
            mixed = self.where_chosen(read, chosen, experts, context)
        mixed = normed(self.post_norm, mixed)
        if self.shared is not None:
            mixed = mixed + normed(self.shared_post_norm, self.shared(normed(self.shared_pre_norm, hidden), context))
        return normed(self.output_norm, mixed)

    def route(
        self, hidden: Float[Tensor, "batch length width"], context: Context
    ) -> tuple[Float[Tensor, "batch length top_k"], Int[Tensor, "batch length top_k"]]:
        """The weights and the numbers of each token's experts. Adds the auxiliary losses."""
        read = normed(self.router_norm, hidden)
        with uncast(hidden.device.type):
            logits = functional.linear(wide(read), wide(self.router))
            if self.router_scale is not None:
                logits = logits * self.router_scale
        # over all experts, before top_k: the loss needs the weights of those not chosen too
        weights = logits.softmax(-1)
        chosen, experts = weights.topk(self.spec.top_k, dim=-1)
        if self.spec.balance or self.spec.z_loss:
            context.add_auxiliary_loss(lambda: self.losses(logits, weights, experts, context.counted_tokens(hidden.shape[1])))
        if self.spec.normalise:
            chosen = chosen / chosen.sum(-1, keepdim=True)
        if self.expert_scale is not None:
            chosen = chosen * wide(self.expert_scale)[experts]
        return chosen.to(hidden.dtype), experts

    def where_chosen(
        self,
        hidden: Float[Tensor, "batch length width"],
        weights: Float[Tensor, "batch length top_k"],
        experts: Int[Tensor, "batch length top_k"],
        context: Context,
    ) -> Float[Tensor, "batch length width"]:
        """Each expert processes its own tokens, which are contiguous once the choices are sorted by expert."""
        # [tokens, width]; a choice is a pair of token and expert, [tokens * top_k]
        flat = hidden.flatten(0, 1)
        order = experts.flatten().argsort(stable=True)
        # the token of each choice
        tokens = order.div(self.spec.top_k, rounding_mode="floor")
        parts = torch.split(flat[tokens], self.loads(experts))
        trained = hidden.requires_grad or any(parameter.requires_grad for parameter in self.experts.parameters())
        every = torch.is_grad_enabled() and trained  # an expert without tokens gets a gradient of zero instead of None
        made = [
            expert(part[None], context)[0] if every or len(part) else part
            for expert, part in zip(self.experts, parts, strict=True)
        ]
        # [tokens * top_k, width], added up by token
        weighted = torch.cat(made) * weights.flatten()[order, None]
        return torch.zeros_like(flat).index_add(0, tokens, weighted).view_as(hidden)

    def loads(self, experts: Int[Tensor, "batch length top_k"]) -> list[int]:
        """The number of tokens per expert. On the meta device, where the choice has no values, a uniform load."""
        if experts.device.type != "meta":
            counts: list[int] = experts.flatten().bincount(minlength=self.spec.experts).tolist()
            return counts
        ends = [experts.numel() * end // self.spec.experts for end in range(self.spec.experts + 1)]
        return [end - begin for begin, end in pairwise(ends)]

    def losses(
        self,
        logits: Float[Tensor, "batch length experts"],
        weights: Float[Tensor, "batch length experts"],
        experts: Int[Tensor, "batch length top_k"],
        present: Bool[Tensor, "batch length"] | None,
    ) -> Float[Tensor, ""]:
        """The sum of the auxiliary losses times their coefficients."""
        counts = torch.ones_like(weights[..., 0]) if present is None else present.to(weights.dtype)
        # the weight of each token in a mean, [batch, length, 1]: 0 at padding
        counts = counts[..., None] / counts.sum().clamp(min=1)
        # f_i and, below, P_i of `balance`, both [experts]
        load = (functional.one_hot(experts, self.spec.experts).sum(-2) * counts).sum((0, 1)) / self.spec.top_k
        balance = self.spec.experts * (load * (weights * counts).sum((0, 1))).sum()
        z_loss = (logits.logsumexp(-1).square() * counts[..., 0]).sum()
        return self.spec.balance * balance + self.spec.z_loss * z_loss


def built(norm: BlockSpec | None, sizes: Sizes) -> nn.Module | None:
    return None if norm is None else build_block(norm, sizes, "norm")


def normed(norm: nn.Module | None, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
    if norm is None:
        return hidden
    made: Tensor = norm(hidden)
    return made
