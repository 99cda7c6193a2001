"""A decoder run on a prompt and then on one token of each row at a time."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.heads import AttentionHeads
from pairform.blocks.attention.self_attention import OwnSequenceAttention
from pairform.blocks.cache import BUCKET, Cache
from pairform.blocks.context import Context, Source, TokenSlot

if TYPE_CHECKING:
    from pairform.assemblies.model import Model

PIECE = 4096
"""Tokens of a prompt that run at a time, where their order lets them: a longer one would need more memory."""
Step: TypeAlias = Callable[["Model", Tensor, Tensor, Mapping[int | None, TokenSlot], Source | None, Cache], Tensor]


class Decoding:
    """Logits of the next token for rows that grow.

    first: how many places of padding stand before each row's tokens, `[batch, 1]`; None where no row has any.
    compile: run single tokens by a compiled step. All that changes between two of them is in tensors, and buffers and sources
    have lengths rounded up to a bucket's, so that steps, and texts of other lengths in the bucket, share one compilation. On a
    CUDA device the steps of one text are also one CUDA graph.
    """

    def __init__(
        self,
        model: "Model",
        source: Source | None,
        cache: Cache | None,
        first: Int[Tensor, "batch 1"] | None,
        *,
        length: int,
        compile: bool = False,
    ) -> None:
        """length: how many tokens the rows may come to have."""
        self.model, self.source, self.cache, self.first = model, source, cache, first
        self.prompt: int | None = None
        device = next(model.parameters()).device
        self.places = torch.arange(length, device=device)[None]
        self.valid = None if first is None else self.places >= first
        self.step = CompiledStep(model) if compile else None
        if compile and cache is not None:
            cache.room = max(cache.room, bucket(length))

    def __call__(self, tokens: Int[Tensor, "batch length"], pixels: Tensor | None = None) -> Float[Tensor, "batch vocabulary"]:
        """The logits behind `tokens`, of which those that the cache holds are not run again."""
        length, begin = tokens.shape[1], 0 if self.cache is None else self.cache.length
        if self.prompt is None:
            self.prompt = length
        if self.step is not None and self.cache is not None and self.cache.length and begin == length - 1:
            token = tokens[:, begin:].clone(memory_format=torch.contiguous_format)  # or its stride would be the text's length
            return self.step(token, self.first, self.source, self.cache)
        whole = self.cache is None or pixels is not None or not in_order(self.model)
        ends = [length] if whole else [*range(begin + PIECE, length, PIECE), length]
        for end in ends:
            hidden = self.run(tokens, begin, end, pixels)
            begin = end
        return logits_of(self.model, hidden)

    def run(self, tokens: Tensor, begin: int, end: int, pixels: Tensor | None) -> Tensor:
        decoder = self.model.decoder
        assert decoder is not None
        positions = self.places[:, begin:end]
        hidden: Tensor = decoder(
            tokens[:, begin:end],
            pixel_values=pixels,
            valid=None if self.valid is None else self.valid[:, :end],
            positions=positions if self.first is None else positions - self.first,
            prefix_lengths=self.prefix(len(tokens), begin),
            source=self.source,
            cache=self.cache,
            prompt_length=self.prompt,
        ).hidden
        return hidden

    def prefix(self, rows: int, begin: int) -> Int[Tensor, " batch"] | None:
        """How many tokens the prompt has in each row, where they are a prefix; of a cache's next tokens none are."""
        assert self.model.decoder is not None
        if self.prompt is None or not self.model.decoder.spec.prefixed or (self.cache is not None and begin > 0):
            return None
        whole = torch.full((rows,), self.prompt, device=self.places.device)
        return whole if self.first is None else whole - self.first[:, 0]

    def spread(self, beams: int) -> None:
        """Go on with each row as often as it has beams. They share the source's keys where attention can read them so."""
        assert self.model.decoder is not None
        if self.cache is not None:
            blocks = (module for module in self.model.decoder.modules() if isinstance(module, AttentionHeads))
            self.cache = self.cache.spread(beams, share=all(block.kernel in ("auto", "eager") for block in blocks))
        if self.source is not None:
            if self.cache is None:  # else hidden states are not read again
                self.source = self.source.each(lambda hidden: hidden.repeat_interleave(beams, 0))
            valid = None if self.source.valid is None else self.source.valid.repeat_interleave(beams, 0)
            self.source = replace(self.source, valid=valid)
        if self.first is not None:
            self.first = self.first.repeat_interleave(beams, 0)
            self.valid = self.places >= self.first

    def reorder(self, rows: Int[Tensor, " batch"]) -> None:
        """Go on with these rows, in this order."""
        if self.cache is not None:
            self.cache = self.cache.rows(rows)


class CompiledStep:
    """Runs `step` compiled, and on a CUDA device as one graph for as long as a cache's buffers stay where they are."""

    def __init__(self, model: "Model") -> None:
        self.model = model
        self.run = compiled_step(model)
        self.captured: Captured | None = None
        self.buffers: list[int] = []

    def __call__(
        self, token: Int[Tensor, "batch 1"], first: Int[Tensor, "batch 1"] | None, source: Source | None, cache: Cache
    ) -> Float[Tensor, "batch vocabulary"]:
        slots: dict[int | None, TokenSlot] = {}
        for own in cache.own.values():  # those with the same window are written alike
            slot, shift = own.advance(), own.start - own.begin
            if own.window not in slots:
                begin = None if first is None else first - shift
                slots[own.window] = TokenSlot(torch.full((1,), slot, device=token.device), begin)
        position = torch.full((1, 1), cache.length, device=token.device)
        position = position if first is None else position - first
        cache.length += 1
        if token.device.type != "cuda":
            return self.run(self.model, token, position, slots, source, cache)
        return self.replay(token, position, slots, source, cache)

    def replay(
        self, token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot], source: Source | None, cache: Cache
    ) -> Tensor:
        """The first step runs as it is, the second one is captured, and later ones are replays of it."""
        buffers = [own.buffers.keys.data_ptr() for own in cache.own.values()]
        buffers += [memory.state.data_ptr() for memory in cache.states.values()]
        if buffers != self.buffers:
            self.buffers, self.captured = buffers, None
            return self.run(self.model, token, position, slots, source, cache)
        if self.captured is None:

            def run(token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot]) -> Tensor:
                return self.run(self.model, token, position, slots, source, cache)

            self.captured = Captured(run, token, position, slots)
        return self.captured(token, position, slots)


class Captured:
    """A CUDA graph of one step: its inputs are copied to where they lay when it was captured."""

    def __init__(self, run: Callable[..., Tensor], token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot]):
        token, position = token.clone(), position.clone()
        slots = {
            window: TokenSlot(slot.token.clone(), None if slot.first is None else slot.first.clone())
            for window, slot in slots.items()
        }
        self.inputs = tensors_of(token, position, slots)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = run(token, position, slots)

    def __call__(self, token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot]) -> Tensor:
        for held, new in zip(self.inputs, tensors_of(token, position, slots), strict=True):
            held.copy_(new)
        self.graph.replay()
        return self.logits


def tensors_of(token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot]) -> list[Tensor]:
    firsts = [slot.first for slot in slots.values() if slot.first is not None]
    return [token, position, *(slot.token for slot in slots.values()), *firsts]


def step(
    model: "Model",
    token: Int[Tensor, "batch 1"],
    position: Int[Tensor, "batch 1"],
    slots: Mapping[int | None, TokenSlot],
    source: Source | None,
    cache: Cache,
) -> Float[Tensor, "batch vocabulary"]:
    """Logits behind one token of each row, which the buffers of `cache` take up at `slots`."""
    assert model.decoder is not None
    context = Context(position, source=source, cache=cache, slots=slots)
    hidden = model.decoder.placed(model.decoder.embedding(token), position)
    for index, layer in enumerate(model.decoder.layers):
        hidden = layer(hidden, context, index)
    return logits_of(model, model.decoder.norm(hidden))


COMPILED: WeakKeyDictionary["Model", Step] = WeakKeyDictionary()


def compiled_step(model: "Model") -> Step:
    """`step`, compiled for this model. torch counts compilations by code, so each model has a copy of it."""
    if model not in COMPILED:
        own = FunctionType(step.__code__.replace(co_name=f"step_{len(COMPILED)}"), step.__globals__)
        COMPILED[model] = torch.compile(own, fullgraph=True)
    return COMPILED[model]


def logits_of(model: "Model", hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch vocabulary"]:
    """Of the last token of each row."""
    logits: Tensor = model.head(model.lowered(hidden[:, -1:]), None, model.tied())
    return logits[:, 0]


def in_order(model: "Model") -> bool:
    """Whether no token of the decoder sees a later one, so that a prompt may run in pieces."""
    assert model.decoder is not None
    masks = (module.mask for module in model.decoder.modules() if isinstance(module, OwnSequenceAttention))
    return all(mask.causal and not mask.prefix for mask in masks)


def bucket(length: int) -> int:
    """`length` rounded up, by at most a quarter beyond the smallest buckets: four in each doubling."""
    size = max(BUCKET, 1 << max(length.bit_length() - 3, 0))
    return -(-length // size) * size


def in_bucket(source: Source) -> Source:
    """The source with padding behind it, as long as its bucket."""
    length = source.hidden.shape[1]
    more = bucket(length) - length
    valid = torch.ones(source.hidden.shape[:2], dtype=torch.bool, device=source.hidden.device)
    valid = valid if source.valid is None else source.valid
    return replace(source.each(lambda hidden: functional.pad(hidden, (0, 0, 0, more))), valid=functional.pad(valid, (0, more)))
