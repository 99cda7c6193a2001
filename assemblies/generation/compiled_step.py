"""The compiled decoding step, for buckets of lengths; on a CUDA device also as a CUDA graph."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import TypeAlias
from weakref import ref

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.modeling.base import ModelParts
from pairform.blocks.cache import Cache
from pairform.blocks.context import Context, Source, TokenSlot
from pairform.blocks.key_values import BUCKET

Step: TypeAlias = Callable[[ModelParts, Tensor, Tensor, Mapping[int | None, TokenSlot], Source | None, Cache], Tensor]


class CompiledStep:
    """Runs the compiled `step`, and on a CUDA device a CUDA graph of it for as long as the cache's buffers stay the same."""

    def __init__(self, model: ModelParts) -> None:
        self.model = model
        self.run = compiled_step(model)
        self.captured: Captured | None = None
        self.held: list[ref[Tensor]] = []

    def __call__(
        self, token: Int[Tensor, "batch 1"], first: Int[Tensor, "batch 1"] | None, source: Source | None, cache: Cache
    ) -> Float[Tensor, "batch vocabulary"]:
        slots: dict[int | None, TokenSlot] = {}
        for own in cache.own.values():  # those with the same window share a slot
            # `advance` first, since it may move the kept tokens; a position minus `shift` is its slot
            slot, shift = own.advance(), own.start - own.begin
            if own.window not in slots:
                begin = None if first is None else first - shift
                slots[own.window] = TokenSlot(torch.full((1,), slot, device=token.device), begin)
        # positions count from the first token that is not padding
        position = torch.full((1, 1), cache.length, device=token.device)
        position = position if first is None else position - first
        cache.length += 1
        if token.device.type != "cuda":
            return self.run(self.model, token, position, slots, source, cache)
        return self.replay(token, position, slots, source, cache)

    def replay(
        self, token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot], source: Source | None, cache: Cache
    ) -> Tensor:
        """Run the first step directly, capture the second as a CUDA graph, and replay the graph in later ones."""
        held = held_by(cache, source)
        if len(held) != len(self.held) or any(tensor is not known() for tensor, known in zip(held, self.held, strict=True)):
            self.held, self.captured = [ref(tensor) for tensor in held], None  # not addresses, which may be reused
            return self.run(self.model, token, position, slots, source, cache)
        if self.captured is None:

            def run(token: Tensor, position: Tensor, slots: Mapping[int | None, TokenSlot]) -> Tensor:
                return self.run(self.model, token, position, slots, source, cache)

            self.captured = Captured(run, token, position, slots)
        return self.captured(token, position, slots)


def held_by(cache: Cache, source: Source | None) -> list[Tensor]:
    """The tensors besides its inputs that a step reads and writes. A CUDA graph contains their addresses."""
    buffers = [own.buffers for own in cache.own.values()] + list(cache.source.values())
    held = [tensor for each in buffers for tensor in (each.keys, each.values)]
    held += [memory.state for memory in cache.states.values()]
    return held if source is None or source.valid is None else [*held, source.valid]


class Captured:
    """A CUDA graph of one step. New inputs are copied into the tensors that it was captured with."""

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
    model: ModelParts,
    token: Int[Tensor, "batch 1"],
    position: Int[Tensor, "batch 1"],
    slots: Mapping[int | None, TokenSlot],
    source: Source | None,
    cache: Cache,
) -> Float[Tensor, "batch vocabulary"]:
    """The next-token logits after one token of each row, whose keys and values are written to `cache` at `slots`."""
    assert model.decoder is not None
    context = Context(position, source=source, cache=cache, slots=slots)
    return logits_of(model, model.decoder.run(model.decoder.tokens(token), context, token)[0])


def compiled_step(model: ModelParts) -> Step:
    """`step`, compiled for this model. torch limits recompilations per code object, so each model has its own."""
    if model.compiled_step.value is None:
        own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
        model.compiled_step.value = torch.compile(own, fullgraph=True)
    compiled: Step = model.compiled_step.value
    return compiled


def logits_of(model: ModelParts, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch vocabulary"]:
    """The logits at the last token of each row."""
    logits: Tensor = model.head(model.lowered(hidden[:, -1:]), None, model.tied())
    return logits[:, 0]


def bucket(length: int) -> int:
    """`length` rounded up to a bucket. There are four per doubling above the smallest, so it grows by a quarter at most."""
    # a quarter of the highest power of two in `length`
    size = max(BUCKET, 1 << max(length.bit_length() - 3, 0))
    return -(-length // size) * size


def in_bucket(source: Source) -> Source:
    """The source, padded on the right to the length of its bucket."""
    length = source.hidden.shape[1]
    more = bucket(length) - length
    valid = source.valid
    if valid is None:
        valid = torch.ones(source.hidden.shape[:2], dtype=torch.bool, device=source.hidden.device)
    # the padding is masked, and changes no result
    return replace(source.each(lambda hidden: functional.pad(hidden, (0, 0, 0, more))), valid=functional.pad(valid, (0, more)))
