"""A decoder run on a prompt and then on one token of each row at a time."""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

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
        self.static = StaticStep(model, source, first) if compile else None
        if compile and cache is not None:
            cache.room = max(cache.room, bucket(length))

    def __call__(self, tokens: Int[Tensor, "batch length"], pixels: Tensor | None = None) -> Float[Tensor, "batch vocabulary"]:
        """The logits behind `tokens`, of which those that the cache holds are not run again."""
        length, begin = tokens.shape[1], 0 if self.cache is None else self.cache.length
        if self.prompt is None:
            self.prompt = length
        if self.static is not None and self.cache is not None and self.cache.own and begin == length - 1:
            return self.static(tokens[:, begin:], self.cache)
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
            source=self.source,
            cache=self.cache,
            prompt_length=self.prompt,
        ).hidden
        return hidden

    def reorder(self, rows: Int[Tensor, " batch"]) -> None:
        """Go on with these rows, in this order."""
        if self.cache is not None:
            self.cache = self.cache.rows(rows)


class StaticStep:
    """Steps of one token whose inputs are tensors of constant shape, compiled."""

    def __init__(self, model: "Model", source: Source | None, first: Int[Tensor, "batch 1"] | None) -> None:
        self.model, self.source, self.first = model, source, first
        self.run = compiled_step(model)
        self.inputs: tuple[Tensor, ...] | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits: Tensor | None = None

    def __call__(self, token: Int[Tensor, "batch 1"], cache: Cache) -> Float[Tensor, "batch vocabulary"]:
        slots: dict[int | None, tuple[int, int]] = {}
        for own in cache.own.values():
            slot = own.advance()
            slots[own.window] = slot, own.start - own.begin
        position = torch.full((1, 1), cache.length, device=token.device)
        given = {
            window: TokenSlot(torch.full((1,), slot, device=token.device), None if self.first is None else self.first - shift)
            for window, (slot, shift) in slots.items()
        }
        if self.first is not None:
            position = position - self.first
        cache.length += 1
        return self.run(self.model, token, position, given, self.source, cache)


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
    hidden = model.decoder.embedding(token)
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
    logits: Tensor = model.head(hidden[:, -1:], None, model.tied())
    return logits[:, 0]


def in_order(model: "Model") -> bool:
    """Whether no token of the decoder sees a later one, so that a prompt may run in pieces."""
    assert model.decoder is not None
    return all(module.mask.causal for module in model.decoder.modules() if isinstance(module, OwnSequenceAttention))


def bucket(length: int) -> int:
    """`length` rounded up, by at most a quarter beyond the smallest buckets: four in each doubling."""
    size = max(BUCKET, 1 << (max(length, 1).bit_length() - 3))
    return -(-length // size) * size


def in_bucket(source: Source) -> Source:
    """The source with padding behind it, as long as its bucket."""
    length = source.hidden.shape[1]
    more = bucket(length) - length
    valid = torch.ones(source.hidden.shape[:2], dtype=torch.bool, device=source.hidden.device)
    valid = valid if source.valid is None else source.valid
    return Source(functional.pad(source.hidden, (0, 0, 0, more)), functional.pad(valid, (0, more)))
