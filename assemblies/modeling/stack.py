"""A stack: embedding, layers, final norm. The one class behind every encoder, decoder and decoder-only model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pairform.assemblies.modeling.layer import Layer
from pairform.assemblies.modeling.segments import places_in_segments
from pairform.assemblies.modeling.vision import Vision, runs
from pairform.assemblies.specs.model import StackSpec
from pairform.blocks.cache import Cache, Place
from pairform.blocks.context import Context, Reads, Source
from pairform.blocks.positions.score_biases import share_tables
from pairform.registry import InputError, Problem, Sizes, build_block


@dataclass
class StackOutput:
    """hidden: after the final norm. hidden_states: the embeddings, then each layer's output, the last one normed.

    attentions: by what is read ("own" or "source"), the weights of each layer that reads it, `[batch, heads, queries, keys]`.
    layers: what the layers that were asked for gave, by number, behind the final norm.
    auxiliary_loss: the sum of what blocks add to the loss, in training; of a vision tower too, if it is trained.
    """

    hidden: Float[Tensor, "batch length width"]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: Mapping[Reads, tuple[Tensor, ...]] | None = None
    auxiliary_loss: Float[Tensor, ""] | None = None
    layers: Mapping[int, Float[Tensor, "batch length width"]] = field(default_factory=dict)

    def attentions_over(self, reads: Reads) -> tuple[Tensor, ...] | None:
        """The weights over one sequence in every layer that reads it."""
        return None if self.attentions is None else self.attentions.get(reads)


class Stack(nn.Module):
    """Hidden states of a sequence; with a `source`, of a decoder that reads it.

    checkpointed: numbers of the layers that in training are computed again in the backward pass (Chen et al. 2016, arXiv
                  1604.06174), which changes no number: see `Model.checkpoint_layers`.
    """

    def __init__(self, spec: StackSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = build_block(spec.embedding, sizes, "embedding")
        self.position = None if spec.position is None else build_block(spec.position, sizes, "absolute_position")
        inner = (replace(sizes, depth=spec.depth, layer=index) for index in range(spec.depth))
        self.layers = nn.ModuleList(map(Layer, spec.layers, inner))
        share_tables(
            (name, module.get_submodule(f"{name}.block"))
            for layer, module in zip(spec.layers, self.layers, strict=True)
            for name in layer.present
        )
        self.norm = build_block(spec.norm, sizes, "norm")
        self.vision: Vision | None = None
        if spec.vision is not None:
            tower = Stack(spec.vision.tower, Sizes(spec.vision.tower.width))
            self.vision = Vision(spec.vision, tower, sizes.width)
        self.checkpointed: frozenset[int] = frozenset()

    def forward(
        self,
        token_ids: Int[Tensor, "batch length"] | None = None,
        embeds: Float[Tensor, "batch length width"] | None = None,
        *,
        pixel_values: Float[Tensor, "pictures channels height width"] | None = None,
        valid: Bool[Tensor, "batch total_length"] | None = None,
        segments: Int[Tensor, "batch total_length"] | None = None,
        positions: Int[Tensor, "batch length"] | None = None,
        prefix_lengths: Int[Tensor, " batch"] | None = None,
        counted: Bool[Tensor, "batch length"] | None = None,
        source: Source | None = None,
        cache: Cache | None = None,
        prompt_length: int | None = None,
        layers: Collection[int] = (),
        hidden_states: bool = False,
        attentions: bool = False,
    ) -> StackOutput:
        """Run on `token_ids` or `embeds`, with pictures at image tokens.

        valid:     over the cached tokens and the new ones; False is padding.
        segments:  over the same tokens, the numbers of the documents packed in a row.
        positions: absent, they count from the first real token of each row, or of each document in it, so that left padding
                   (at places below zero) changes nothing.
        prefix_lengths: of each row, how many tokens from its first real one on see each other, where masks have a prefix.
        counted: False at new tokens that auxiliary losses leave out, as they leave out padding.
        layers: numbers of the layers whose outputs are asked for.
        prompt_length: image tokens behind so many, counted with the cached ones, hold no picture: the model wrote them.
        """
        offset = 0 if cache is None else cache.length
        prompt = None if prompt_length is None else max(prompt_length - offset, 0)
        hidden, blocks, lost = self._embed(token_ids, embeds, pixel_values, offset, prompt)
        length = hidden.shape[1]
        if valid is not None and valid.shape != (hidden.shape[0], offset + length):
            expected = f"{(hidden.shape[0], offset + length)}: cached and new tokens"
            raise InputError(Problem("attention_mask", f"the shape {tuple(valid.shape)}", expected))
        if segments is not None and segments.shape != (hidden.shape[0], offset + length):
            expected = f"{(hidden.shape[0], offset + length)}: cached and new tokens"
            raise InputError(Problem("segment_ids", f"the shape {tuple(segments.shape)}", expected))
        if positions is None and segments is not None:
            positions = places_in_segments(segments, valid)[:, offset:]
        elif positions is None:
            positions = torch.arange(offset, offset + length, device=hidden.device)[None]
            if valid is not None:
                positions = positions - valid.long().argmax(1, keepdim=True)
        prefix = None if prefix_lengths is None else prefixes(prefix_lengths, offset + length, valid)
        weights: dict[tuple[Reads, Place], Tensor] | None = {} if attentions else None
        losses: dict[Place, Tensor] | None = {} if self.training else None
        if losses is not None and lost is not None:
            losses[-1, "vision"] = lost
        context = Context(
            positions, offset, valid, source, cache, blocks, segments, prefix, counted, weights=weights, losses=losses
        )
        hidden = self.dropped(self.placed(hidden, positions))
        seen = [hidden]
        again = self.checkpointed if self.training and torch.is_grad_enabled() and cache is None else ()
        for index, layer in enumerate(self.layers):
            if index in again:
                hidden = checkpoint(layer, hidden, context, index, use_reentrant=False)
            else:
                hidden = layer(hidden, context, index)
            seen.append(hidden)
        hidden = self.normed(hidden)
        last = len(self.layers) - 1  # a stack that is cut short to count what it costs gives its last layer for later ones
        kept = {index: self.normed(seen[index + 1]) if index < last else hidden for index in layers}
        if cache is not None:
            cache.length = offset + length
        return StackOutput(
            hidden,
            (*seen[:-1], hidden) if hidden_states else None,
            None if weights is None else by_reading(weights),
            torch.stack([*losses.values()]).sum() if losses else None,
            kept,
        )

    def normed(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Behind the final norm and its dropout."""
        return self.dropped(self.norm(hidden))

    def dropped(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """In training, behind the stack's dropout."""
        return functional.dropout(hidden, self.spec.dropout) if self.spec.dropout and self.training else hidden

    def placed(
        self, hidden: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """Embeddings that know where they stand, where the stack has such a position."""
        return hidden if self.position is None else self.position(hidden, positions)

    def _embed(
        self, token_ids: Tensor | None, embeds: Tensor | None, pixel_values: Tensor | None, offset: int, prompt: int | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The first hidden states, the numbers of the runs of image tokens among them, and what pictures add to the loss."""
        if (token_ids is None) == (embeds is None):
            found = "neither" if token_ids is None else "both"
            raise InputError(Problem("inputs", found, "either token ids or embeddings for each stack"))
        if self.vision is None:
            if pixel_values is not None:
                raise InputError(
                    Problem("pixel_values", "pictures for a stack without vision", "a spec whose stack has vision")
                )
            embedded: Tensor = self.embedding(token_ids) if embeds is None else self.embedding.given(embeds)
            return embedded, None, None
        if token_ids is None:
            if pixel_values is not None:
                raise InputError(
                    Problem("pixel_values", "pictures beside inputs_embeds", "input_ids, which say where they stand")
                )
            return self.vision.untouched(self.embedding.given(embeds)), None, None
        places = self.vision.places(token_ids, pixel_values, first=offset == 0, prompt=prompt)
        embedded = self.embedding(token_ids if places is None else token_ids.masked_fill(places, 0))
        if places is None or pixel_values is None:
            return self.vision.untouched(embedded), None, None
        blocks = functional.pad(runs(places), (offset, 0), value=-1)
        embedded, lost = self.vision(embedded, places, pixel_values)
        return embedded, blocks, lost


def prefixes(
    lengths: Int[Tensor, " batch"], total: int, valid: Bool[Tensor, "batch total_length"] | None
) -> Bool[Tensor, "batch total_length"]:
    """True at the first so many real tokens of each row."""
    places = torch.arange(total, device=lengths.device)[None]
    first = 0 if valid is None else valid.long().argmax(1, keepdim=True)
    return (places >= first) & (places < first + lengths[:, None])


def by_reading(found: Mapping[tuple[Reads, Place], Tensor]) -> dict[Reads, tuple[Tensor, ...]]:
    """Attention weights in the order of layers, by what they read."""
    kinds: dict[Reads, list[Tensor]] = {}
    for (reads, _), weights in sorted(found.items(), key=lambda item: item[0][1]):
        kinds.setdefault(reads, []).append(weights)
    return {reads: tuple(weights) for reads, weights in kinds.items()}
