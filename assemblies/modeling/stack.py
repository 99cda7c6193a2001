"""A stack: embedding, layers, final norm. The class of every encoder, decoder and vision tower."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pairform.assemblies.modeling.adapters import embedding_inside
from pairform.assemblies.modeling.inputs import StackInputs
from pairform.assemblies.modeling.layer import Layer
from pairform.assemblies.modeling.vision import Vision, runs
from pairform.assemblies.specs.model import StackSpec
from pairform.assemblies.specs.shared import key_places
from pairform.blocks.attention.self_attention import OwnSequenceAttention
from pairform.blocks.cache import Cache
from pairform.blocks.context import Context, Reads, Source
from pairform.blocks.embeddings import TokenTypes
from pairform.blocks.key_values import Place
from pairform.blocks.layer_inputs import LayerInputs
from pairform.blocks.positions.base import ScoreBias
from pairform.registry import InputError, Problem, Sizes, build_block


@dataclass
class StackOutput:
    """The output of a stack.

    hidden:         after the final norm.
    hidden_states:  the embeddings, then each layer's output, the last one after the final norm.
    attentions:     if requested, by sequence attended to ("own" or "source") the attention weights of each layer that attends
                    to it, `[batch, heads, queries, keys]`.
    auxiliary_loss: in training, the sum of the auxiliary losses of blocks, including those of a trained vision tower.
    layers:         the requested layer outputs by layer number, after the final norm.
    """

    hidden: Float[Tensor, "batch length width"]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: Mapping[Reads, tuple[Tensor, ...]] = field(default_factory=dict)
    auxiliary_loss: Float[Tensor, ""] | None = None
    layers: Mapping[int, Float[Tensor, "batch length width"]] = field(default_factory=dict)


class Stack(nn.Module):
    """Embedding, layers and final norm; with a `source` it is a decoder with an encoder.

    checkpointed: numbers of the layers with activation checkpointing (Chen et al. 2016, arXiv 1604.06174), which changes no
                  result: see `Model.checkpoint_layers`.
    """

    def __init__(self, spec: StackSpec, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = build_block(spec.embedding, sizes, "embedding")
        self.position = None if spec.position is None else build_block(spec.position, sizes, "absolute_position")
        inner = (replace(sizes, depth=spec.depth, layer=index) for index in range(spec.depth))
        self.token_types = None if spec.token_types is None else TokenTypes(spec.token_types, sizes.width)
        self.embedding_norm = None if spec.embedding_norm is None else build_block(spec.embedding_norm, sizes, "norm")
        given = spec.layer_input
        self.layers = nn.ModuleList(Layer(layer, each, given) for layer, each in zip(spec.layers, inner, strict=False))
        self.layer_inputs = None if given is None else LayerInputs(given, replace(sizes, depth=spec.depth))
        self.share_positions()
        self.share_keys()
        self.norm = build_block(spec.norm, sizes, "norm")
        self.vision: Vision | None = None
        if spec.vision is not None:
            tower = Stack(spec.vision.tower, Sizes(spec.vision.tower.width))
            self.vision = Vision(spec.vision, tower, sizes.width)
        self.checkpointed: frozenset[int] = frozenset()

    def share_positions(self) -> None:
        """Let score biases share parameters with those of the nearest earlier layer, in the branch of the same name."""
        earlier: dict[tuple[str, type[ScoreBias]], ScoreBias] = {}
        for spec, layer in zip(self.spec.layers, self.layers, strict=False):
            for name in spec.present:
                position = getattr(layer.get_submodule(name).block, "position", None)
                if isinstance(position, ScoreBias):
                    key = (name, type(position))
                    position.share(earlier.get(key))
                    earlier[key] = position

    def share_keys(self) -> None:
        """Tell blocks that share keys whose they read, and those blocks that they are read."""
        for (index, name), place in key_places(self.spec.layers, self.spec.width).items():
            assert place is not None, "checked by the spec"
            reader, read = (self.layers[at].get_submodule(f"{branch}.block") for at, branch in ((index, name), place))
            assert isinstance(reader, OwnSequenceAttention)
            assert isinstance(read, OwnSequenceAttention)
            reader.keys_from, read.keys_read_later = place, True

    def forward(
        self,
        inputs: StackInputs | Int[Tensor, "batch length"],
        *,
        source: Source | None = None,
        cache: Cache | None = None,
        layers: Collection[int] = (),
        hidden_states: bool = False,
        attentions: bool = False,
    ) -> StackOutput:
        """Run the stack on token IDs or embeddings, with image embeddings at image tokens.

        Args:
            inputs: what the stack reads, or token IDs alone.
            source: the sequence that a decoder attends to.
            cache: keys and values of earlier tokens; the new ones are appended.
            layers: numbers of the layers whose outputs are requested.
            hidden_states, attentions: return these too.
        """
        if isinstance(inputs, Tensor):
            inputs = StackInputs(inputs)
        offset = 0 if cache is None else cache.length
        embedded, image_runs, vision_loss = self.embed(inputs, offset)
        if self.token_types is not None:
            embedded = self.token_types(embedded, inputs.token_types)
        total = offset + embedded.shape[1]
        context = Context(
            inputs.positions_from(offset, embedded.shape[1], embedded.device),
            offset,
            inputs.valid,
            source,
            cache,
            image_runs,
            inputs.segments,
            inputs.prefix(total),
            inputs.counted,
            weights={} if attentions else None,
            losses={} if self.training else None,
        )
        if vision_loss is not None:
            context.add_auxiliary_loss(lambda: vision_loss)
        last = len(self.layers)
        wanted = range(last + 1) if hidden_states else [index + 1 for index in layers]
        output, states = self.run(embedded, context, inputs.ids, wanted)
        if cache is not None:
            # not before: all layers append their tokens at the same offset
            cache.length = total
        return StackOutput(
            output,
            tuple(states.values()) if hidden_states else None,
            by_reading(context.weights) if context.weights else {},
            torch.stack([*context.losses.values()]).sum() if context.losses else None,
            # the final norm has been applied to the last one already; a truncated stack, built to count costs, returns its last
            # layer for later ones
            {index: self.last(states[index + 1]) if index + 1 < last else output for index in layers},
        )

    def run(
        self,
        embedded: Float[Tensor, "batch length width"],
        context: Context,
        ids: Int[Tensor, "batch length"] | None,
        wanted: Collection[int] = (),
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The output of the stack, and the hidden states whose numbers are `wanted`: 0 is that of the embeddings of `ids` with
        their positions and norm, the others are those of the layers, the last one after the final norm."""
        # unbound once: the gradient of an index is as large as the inputs of all layers
        own = () if self.layer_inputs is None else self.layer_inputs(embedded, ids).unbind(2)
        hidden = embedded if self.position is None else self.position(embedded, context.positions)
        hidden = hidden if self.embedding_norm is None else self.embedding_norm(hidden)
        hidden = self.dropped(hidden, self.spec.dropout)
        states = {0: hidden} if 0 in wanted else {}
        # a recomputed layer would append to a cache twice
        recomputed = self.checkpointed if self.training and torch.is_grad_enabled() and context.cache is None else ()
        for index, layer in enumerate(self.layers):
            given = hidden, context, index, *own[index : index + 1]
            hidden = checkpoint(layer, *given, use_reentrant=False) if index in recomputed else layer(*given)
            del given  # which would keep the previous state
            if index + 1 in wanted:
                states[index + 1] = hidden
        hidden = self.last(hidden)
        if len(self.layers) in wanted:
            states[len(self.layers)] = hidden
        return hidden, states

    def last(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """A layer's output as the stack returns it: after the final norm and, in training, dropout."""
        rate = self.spec.dropout if self.spec.final_dropout is None else self.spec.final_dropout
        return self.dropped(self.norm(hidden), rate)

    def dropped(self, hidden: Float[Tensor, "batch length width"], rate: float) -> Float[Tensor, "batch length width"]:
        """`hidden` after dropout, in training."""
        return functional.dropout(hidden, rate) if rate and self.training else hidden

    def tokens(self, ids: Tensor) -> Float[Tensor, "batch length width"]:
        """The embeddings of token IDs, or in a vision tower of images."""
        finished = getattr(embedding_inside(self.embedding), "finished", None)
        rows: Tensor = self.embedding(ids)
        return rows if finished is None else finished(rows, ids)

    def embed(self, inputs: StackInputs, offset: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The embeddings, a number for each run of image tokens in them (`Context.blocks`), and the vision tower's auxiliary
        loss."""
        ids, pixel_values = inputs.ids, inputs.pixel_values
        if (ids is None) == (inputs.embeds is None):
            found = "neither" if ids is None else "both"
            raise InputError(Problem("inputs", found, "either token ids or embeddings for each stack"))
        if pixel_values is not None and self.vision is None:
            raise InputError(Problem("pixel_values", "pictures for a stack without vision", "a spec whose stack has vision"))
        if pixel_values is not None and ids is None:
            raise InputError(
                Problem("pixel_values", "pictures together with inputs_embeds", "input_ids, whose image tokens they replace")
            )
        if ids is None:
            inside: Any = embedding_inside(self.embedding)
            given: Tensor = inside.given(inputs.embeds)
            return given if self.vision is None else self.vision.untouched(given), None, None
        if self.vision is None:
            return self.tokens(ids), None, None
        prompt = None if inputs.prompt_length is None else max(inputs.prompt_length - offset, 0)
        places = self.vision.places(ids, pixel_values, first=offset == 0, prompt=prompt)
        # image tokens may lie outside the vocabulary; the embedding read for them is replaced
        embedded = self.tokens(ids if places is None else ids.masked_fill(places, 0))
        if places is None or pixel_values is None:
            return self.vision.untouched(embedded), None, None
        embedded, loss = self.vision(embedded, places, pixel_values)
        # the tokens of earlier calls belong to no image of this one
        return embedded, functional.pad(runs(places), (offset, 0), value=-1), loss


def by_reading(recorded: Mapping[tuple[Reads, Place], Tensor]) -> dict[Reads, tuple[Tensor, ...]]:
    """Attention weights by sequence attended to, in the order of layers."""
    kinds: dict[Reads, list[Tensor]] = {}
    for (reads, _), weights in sorted(recorded.items(), key=lambda item: item[0][1]):
        kinds.setdefault(reads, []).append(weights)
    return {reads: tuple(weights) for reads, weights in kinds.items()}
