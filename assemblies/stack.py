"""A stack: embedding, layers, final norm. The one class behind every encoder, decoder and decoder-only model."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from pairform.assemblies.layer import Layer
from pairform.assemblies.specs import StackSpec
from pairform.blocks.cache import Cache
from pairform.blocks.context import Context, Source
from pairform.registry import InputError, Problem, Sizes, build_block


@dataclass
class StackOutput:
    """hidden: after the final norm. hidden_states: the embeddings, then each layer's output, the last one normed.

    attentions: by branch name, the weights of each layer that has it, `[batch, heads, queries, keys]`.
    """

    hidden: Float[Tensor, "batch length width"]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: dict[str, tuple[Tensor, ...]] | None = None


class Stack(nn.Module):
    """Hidden states of a sequence; with a `source`, of a decoder that reads it."""

    def __init__(self, spec: StackSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = build_block(spec.embedding, sizes, "embedding")
        self.layers = nn.ModuleList(Layer(layer, sizes) for layer in spec.layers)
        self.norm = build_block(spec.norm, sizes, "norm")

    def forward(
        self,
        token_ids: Int[Tensor, "batch length"] | None = None,
        embeds: Float[Tensor, "batch length width"] | None = None,
        *,
        valid: Bool[Tensor, "batch total_length"] | None = None,
        positions: Int[Tensor, "batch length"] | None = None,
        source: Source | None = None,
        cache: Cache | None = None,
        hidden_states: bool = False,
        attentions: bool = False,
    ) -> StackOutput:
        """Run on `token_ids` or `embeds`. `valid` covers the cached tokens and the new ones; False is padding."""
        hidden = self._embed(token_ids, embeds)
        offset = 0 if cache is None else cache.length
        length = hidden.shape[1]
        if valid is not None and valid.shape != (hidden.shape[0], offset + length):
            expected = f"{(hidden.shape[0], offset + length)}: cached and new tokens"
            raise InputError(Problem("attention_mask", f"the shape {tuple(valid.shape)}", expected))
        if positions is None:
            positions = torch.arange(offset, offset + length, device=hidden.device)[None]
        context = Context(positions, offset, valid, source, cache, weights={} if attentions else None)
        hidden = functional.dropout(hidden, self.spec.dropout, self.training)
        seen = [hidden]
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, context, index)
            seen.append(hidden)
        hidden = functional.dropout(self.norm(hidden), self.spec.dropout, self.training)
        if cache is not None:
            cache.length = offset + length
        return StackOutput(
            hidden,
            (*seen[:-1], hidden) if hidden_states else None,
            self._by_branch(context),
        )

    def _embed(self, token_ids: Tensor | None, embeds: Tensor | None) -> Tensor:
        if (token_ids is None) == (embeds is None):
            found = "neither" if token_ids is None else "both"
            raise InputError(Problem("inputs", found, "either token ids or embeddings for each stack"))
        embedded: Tensor = self.embedding(token_ids) if embeds is None else self.embedding.given(embeds)
        return embedded

    @staticmethod
    def _by_branch(context: Context) -> dict[str, tuple[Tensor, ...]] | None:
        if context.weights is None:
            return None
        found: dict[str, list[Tensor]] = {}
        for (_, branch), weights in sorted(context.weights.items()):
            found.setdefault(branch, []).append(weights)
        return {branch: tuple(weights) for branch, weights in found.items()}
