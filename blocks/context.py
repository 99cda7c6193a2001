"""The inputs of a branch besides its hidden states: one `Context` per forward pass of a stack."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.blocks.key_values import KeyValueCache, KeyValues, Place

T = TypeVar("T")
Reads: TypeAlias = Literal["own", "source", "sink"]
"""The sequence that attention attends to: that of its queries, the source, or the key of an attention sink."""


@dataclass(frozen=True)
class Source:
    """The encoder's output as the decoder reads it, after the bridge.

    valid:    False at padding; None: there is no padding.
    segments: numbers of the documents packed in a row, matching those of the decoder.
    layers:   the outputs of the encoder layers that some block attends to, by layer number.
    """

    hidden: Float[Tensor, "batch source_length source_width"]
    valid: Bool[Tensor, "batch source_length"] | None = None
    segments: Int[Tensor, "batch source_length"] | None = None
    layers: Mapping[int, Float[Tensor, "batch source_length source_width"]] = field(default_factory=dict)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Source":
        """A copy with `change` applied to all hidden states."""
        layers = {layer: change(hidden) for layer, hidden in self.layers.items()}
        return replace(self, hidden=change(self.hidden), layers=layers)


@dataclass(frozen=True)
class TokenSlot:
    """The slot in the cache's buffers for the token of a decoding step, and the slot of each row's first token that is not
    padding (None: the first slot). Tensors, so that one compiled step serves all slots."""

    token: Int[Tensor, "1"]
    first: Int[Tensor, "batch 1"] | None = None


def opaque(kind: type[T]) -> type[T]:
    """A dataclass that others no longer recognise as one.

    FSDP copies dataclasses among the arguments of a layer, with the dicts in them, so that it would lose what the layer writes:
    keys for later layers, auxiliary losses, memos.
    """
    del kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind


@opaque
@dataclass
class Context:
    """The state that all branches of a stack share in one forward pass.

    positions: for positional encodings, `[batch or 1, length]`.
    offset:    the number of tokens of the sequence in earlier calls.
    valid:     False at padding, over cached and new tokens, `[batch, offset + length]`; None: there is no padding.
    source:    the sequence that cross-attention attends to.
    cache:     the KV cache; None for a pass without one.
    blocks:    a number for each run of image tokens, which attend to each other; else -1, `[batch, offset + length]`.
    prefix:    True at tokens of the prefix, which attend to each other if the mask has a prefix, `[batch, offset + length]`.
    segments:  numbers of the documents packed in a row, `[batch, offset + length]`; None: one document per row.
    counted:   False at new tokens that auxiliary losses ignore, though others may attend to them, `[batch, length]`.
    slots:     for a compiled decoding step, by window (None: no window); `offset` is unused then.
    weights:   attention weights by sequence attended to and place, `[batch, heads, q, k]`, if requested.
    losses:    auxiliary losses by place, in training.
    shared_keys, shared_source_keys: keys and values that later layers attend to as well, by the place that made them: of the
               sequence itself and of the source.
    place:     layer number and name of the branch that runs now; each layer sets it before it runs a branch.
    memo:      the values of `once`.
    """

    positions: Int[Tensor, "batch length"]
    offset: int = 0
    valid: Bool[Tensor, "batch total_length"] | None = None
    source: Source | None = None
    cache: KeyValueCache | None = None
    blocks: Int[Tensor, "batch total_length"] | None = None
    segments: Int[Tensor, "batch total_length"] | None = None
    prefix: Bool[Tensor, "batch total_length"] | None = None
    counted: Bool[Tensor, "batch length"] | None = None
    slots: Mapping[int | None, TokenSlot] | None = None
    weights: dict[tuple[Reads, Place], Tensor] | None = None
    losses: dict[Place, Tensor] | None = None
    shared_keys: dict[Place, KeyValues] = field(default_factory=dict)
    shared_source_keys: dict[Place, KeyValues] = field(default_factory=dict)
    place: Place = (0, "")
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, called only at the first request for `key` in this pass: masks and RoPE tables are shared by all layers.

        Compiled code calls it each time: the compiler finds common subexpressions itself, and would recompile for each key.
        """
        if torch.compiler.is_compiling():
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        made: T = self.memo[key]
        return made

    def add_auxiliary_loss(self, make: Callable[[], Tensor]) -> None:
        """Add `make()`, a scalar, to the training loss."""
        if self.losses is not None:  # by place, so that a recomputed layer (activation checkpointing) counts once
            self.losses[self.place] = make()

    @property
    def lengths(self) -> Int[Tensor, "batch tokens"]:
        """The number of tokens so far, without left padding: of each row, `[batch, 1]`, or in packed rows of the document that
        each new token belongs to, `[batch, length]`."""
        if self.segments is None:
            return self.positions.amax(1, keepdim=True) + 1
        document = document_numbers(self.segments)[:, self.offset :]
        document = document - document[:, :1]
        present = self.present(document.shape[1])
        places = self.positions.expand_as(document)
        places = places if present is None else places.masked_fill(~present, 0)
        return torch.zeros_like(places).scatter_reduce(1, document, places, "amax").gather(1, document) + 1

    def present(self, length: int) -> Bool[Tensor, "batch length"] | None:
        """False at padding among the last `length` tokens; None: there is none."""
        return None if self.valid is None else self.valid[:, -length:]

    def counted_tokens(self, length: int) -> Bool[Tensor, "batch length"] | None:
        """True at those of the last `length` tokens that count in auxiliary losses; None: all."""
        present = self.present(length)
        return self.counted if present is None else present if self.counted is None else present & self.counted


def begins(segments: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """True at the first token of each document."""
    return functional.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)


def document_numbers(segments: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """The number of each token's document in its row, from 0."""
    return begins(segments).long().cumsum(1) - 1
