"""A recurrent mixer, whose state is one matrix per head at any sequence length."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pairform.blocks.attention.linear_recurrence import State, Tokens, chunked, stepped
from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.context import Context
from pairform.blocks.functional.dtypes import uncast, wide
from pairform.blocks.functional.linear import Linear
from pairform.blocks.key_values import Memory
from pairform.blocks.positions.base import NoPosition, PositionedSpec, ScoreBiasSpec
from pairform.registry import BlockSpec, PositiveFloat, PositiveInt, Problem, Scales, Sizes, Slot, build_block


class Retention(nn.Module):
    """Multi-scale retention (RetNet; Sun et al. 2023, arXiv 2307.08621, section 2): `S = decay S + k v`, read by q.

    The output of each head is normalised and gated by `silu(hidden W)`. Retention is causal and has no softmax and no window.
    The cache holds `S`, `[heads, head_dim, value_dim]` in at least float32, instead of keys; padding does not change it.
    Training processes chunks of tokens in parallel, without approximation.
    """

    class Spec(PositionedSpec):
        name: Literal["retention"] = "retention"
        formula: ClassVar[str] = r"""
        $$S_t = \gamma_t S_{t-1} + \frac{k_t v_t^\top}{\sqrt{c}}, \qquad o_t = S_t^\top q_t$$

        $$y_t = W_O \left( \mathrm{silu}(W_G x_t) \odot \mathrm{RMSNorm}(o_t) \right)$$

        in each head of $c$ channels; $W_O$ projects all heads. The decay of head $h$, counted from 0, is $\gamma_t = 1 -
        2^{-5-h}$ if it is fixed, and $\gamma_t = \sigma(w_h^\top x_t)^{1/\tau}$ with the temperature $\tau$ if it is gated.
        """
        heads: Annotated[PositiveInt, Scales("heads")] = Field(examples=[8], description="Number of heads.")
        head_dim: Annotated[PositiveInt | None, Scales("head_dim")] = Field(
            default=None, description="Channels of a head's queries and keys. Default: `width / heads`."
        )
        value_dim: Annotated[PositiveInt | None, Scales("head_part")] = Field(
            default=None, description="Channels of a head's values. Default: `head_dim`."
        )
        decay: Literal["fixed", "gated"] = Field(
            default="gated",
            description="Factor on the state from one token to the next. fixed: `1 - 2 ** (-5 - head)`; gated: `sigmoid(hidden "
            "W) ** (1 / temperature)`, per token and head (YOCO; Sun et al. 2024, arXiv 2405.05254, section 3.1).",
        )
        temperature: PositiveFloat = Field(default=16.0, description="Larger values make a gated decay slower.")
        position: Annotated[BlockSpec, Slot("position")] = Field(
            default=NoPosition.Spec(), description="Positional encoding of queries and keys; rope in both papers."
        )
        mask: MaskSpec = Field(default=MaskSpec(), description="Must be causal, without a window and without a prefix.")
        bias: bool = Field(default=False, description="Add a learned bias to every projection but the decay's.")
        eps: PositiveFloat = Field(
            default=1e-6, description="Added to the mean square in the norm of each head's output, which has no learned scale."
        )

        def check(self, sizes: Sizes) -> Iterator[Problem]:
            if self.head_dim is None and sizes.width % self.heads:
                found = f"{self.heads} heads in a width of {sizes.width}"
                yield Problem("heads", found, "heads that divide the width", "Or set head_dim.")
            if isinstance(self.position, ScoreBiasSpec):
                yield Problem("position", f"{self.position.name!r}", "a position of queries and keys: retention has no scores")
            yield from super().check(sizes)
            if not self.mask.causal:
                expected = "a causal mask: a recurrent mixer reads no later token, so it cannot stand in a bidirectional stack"
                yield Problem("mask.causal", "false", expected)
            if self.mask.window is not None:
                yield Problem("mask.window", f"{list(self.mask.window)}", "null: retention has a decay instead of a window")
            if self.mask.prefix:
                yield Problem("mask.prefix", "true", "false: a recurrent mixer reads no later token")

    scored = ("q_proj", "k_proj")

    def __init__(self, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.heads = spec.heads
        self.head_dim = spec.head_dim or sizes.width // spec.heads
        self.value_dim = spec.value_dim or self.head_dim
        self.position = build_block(spec.position, spec.position_sizes(sizes), "position")
        self.q_proj = Linear(sizes.width, self.heads * self.head_dim, bias=spec.bias)
        self.k_proj = Linear(sizes.width, self.heads * self.head_dim, bias=spec.bias)
        self.v_proj = Linear(sizes.width, self.heads * self.value_dim, bias=spec.bias)
        self.gate_proj = Linear(sizes.width, self.heads * self.value_dim, bias=spec.bias)
        self.o_proj = Linear(self.heads * self.value_dim, sizes.width, bias=spec.bias)
        self.decay_proj = Linear(sizes.width, self.heads, bias=False) if spec.decay == "gated" else None

    def forward(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Float[Tensor, "batch length width"]:
        outputs = self.remembered(self.tokens(hidden, context), context)
        # [batch, heads, length, value_dim], by head: heads of different decay have different variances (section 2.2)
        normed = functional.rms_norm(outputs, outputs.shape[-1:], eps=self.spec.eps).to(hidden.dtype)
        mixed: Tensor = self.o_proj(functional.silu(self.gate_proj(hidden)) * rearrange(normed, "b h l d -> b l (h d)"))
        return mixed

    def tokens(self, hidden: Float[Tensor, "batch length width"], context: Context) -> Tokens:
        """Queries, keys, values and decays in at least float32. At padding the key is zero and the state does not decay."""
        parts = [
            rearrange(project(hidden), "b l (h d) -> b h l d", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        ]
        queries, keys = (wide(self.position(part, context)) for part in parts[:2])
        keys, decay = keys * self.head_dim**-0.5, self.decay(hidden)
        present = context.present(hidden.shape[1]) if context.slots is None else None
        if present is not None:
            keys = keys.masked_fill(~present[:, None, :, None], 0)
            decay = decay.masked_fill(~present[:, None], 0)
        return Tokens(queries, keys, wide(parts[2]), decay, documents(context))

    def decay(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length"]:
        """The logarithm of the factor on each head's state at each token."""
        if self.decay_proj is not None:
            # the logarithm of sigmoid(x) ** (1 / temperature)
            gates = functional.logsigmoid(wide(self.decay_proj(hidden))) / self.spec.temperature
            return rearrange(gates, "b l h -> b h l")
        heads = torch.arange(self.heads, device=hidden.device, dtype=torch.promote_types(hidden.dtype, torch.float32))
        # log1p, since late heads decay by less than float32 resolves next to 1
        return torch.log1p(-torch.exp2(-5 - heads))[:, None].expand(len(hidden), -1, hidden.shape[1])

    def remembered(self, tokens: Tokens, context: Context) -> Float[Tensor, "batch heads length value_dim"]:
        """The output of the recurrence, from the cached state on; updates the cache."""
        batch, _, length, _ = tokens.queries.shape
        memory = None if context.cache is None else context.cache.states.get(context.place)
        if memory is None:
            state: State = tokens.keys.new_zeros(batch, self.heads, self.head_dim, self.value_dim)
        else:
            state = memory.state
        with uncast(state.device.type):  # autocast would round the state at each step
            outputs, state = (stepped if length == 1 else chunked)(tokens, state)
        if context.cache is None:
            return outputs
        if memory is not None and context.slots is not None:
            memory.state.copy_(state)  # in place: a captured CUDA graph reads this address
        else:
            context.cache.states[context.place] = Memory(state)
        return outputs


def documents(context: Context) -> Int[Tensor, "batch length_and_one"] | None:
    """Document numbers of the last earlier token and of the new ones; the first new one counts twice if none came earlier."""
    if context.segments is None:
        return None
    begin = context.offset
    return torch.cat((context.segments[:, max(begin - 1, 0)][:, None], context.segments[:, begin:]), 1)
