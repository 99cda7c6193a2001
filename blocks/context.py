"""What a branch may see beside its own hidden states: one value for each forward pass of a stack."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.cache import Cache, Place

T = TypeVar("T")
Reads: TypeAlias = Literal["own", "source", "sink"]
"""Which sequence attention reads: the one its queries are of, the encoder's output, or a key that holds nothing."""


@dataclass(frozen=True)
class Source:
    """The encoder's output as a decoder sees it. `valid` is False at padding; None means that nothing is padding. `segments`
    numbers the documents packed in a row, as the decoder's do. `layers` holds the outputs of those of the encoder's layers that
    some block reads, by number."""

    hidden: Float[Tensor, "batch source_length source_width"]
    valid: Bool[Tensor, "batch source_length"] | None = None
    segments: Int[Tensor, "batch source_length"] | None = None
    layers: Mapping[int, Float[Tensor, "batch source_length source_width"]] = field(default_factory=dict)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Source":
        """The same with all hidden states changed."""
        layers = {layer: change(hidden) for layer, hidden in self.layers.items()}
        return replace(self, hidden=change(self.hidden), layers=layers)


@dataclass(frozen=True)
class TokenSlot:
    """Where a step of decoding writes its one token in the cache's buffers, and where each row's first real token lies (None:
    at their beginning). Tensors, so that one compiled step serves every place."""

    token: Int[Tensor, "1"]
    first: Int[Tensor, "batch 1"] | None = None


@dataclass
class Context:
    """Shared by all branches of a stack in one forward pass.

    place:     the branch that runs now; each layer sets it before it runs one.

    positions: what positional encodings count, `[batch or 1, length]`.
    offset:    how many tokens of the same sequence came in earlier calls.
    valid:     False at padding, over earlier and present tokens, `[batch, offset + length]`; None: nothing is padding.
    source:    what cross-attention reads.
    cache:     where keys and values are kept between calls; None to keep none.
    blocks:    numbers of the runs of image tokens that attend to each other, `[batch, offset + length]`; -1 is none.
    prefix:    True at tokens of the prefix, which see each other where the mask says so, `[batch, offset + length]`.
    segments:  numbers of the documents packed in a row, `[batch, offset + length]`; None: each row is one.
    counted:   False at new tokens that auxiliary losses leave out, though others may see them, `[batch, length]`.
    slots:     by window (None: no window), for a step that writes one token in whole buffers; `offset` is not read then.
    weights:   attention weights by what they read and their place, filled where they are asked for.
    losses:    auxiliary losses by place, filled in training.
    """

    positions: Int[Tensor, "batch length"]
    offset: int = 0
    valid: Bool[Tensor, "batch total_length"] | None = None
    source: Source | None = None
    cache: Cache | None = None
    blocks: Int[Tensor, "batch total_length"] | None = None
    segments: Int[Tensor, "batch total_length"] | None = None
    prefix: Bool[Tensor, "batch total_length"] | None = None
    counted: Bool[Tensor, "batch length"] | None = None
    slots: Mapping[int | None, TokenSlot] | None = None
    weights: dict[tuple[Reads, Place], Tensor] | None = None
    losses: dict[Place, Tensor] | None = None
    place: Place = (0, "")
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, called only the first time that `key` is asked for in this pass.

        Compiled code makes it each time: the compiler finds equal parts by itself, and would compile anew for each key.
        """
        if torch.compiler.is_dynamo_compiling():
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        made: T = self.memo[key]
        return made

    def record(self, reads: Reads, weights: Tensor) -> None:
        """Keep this branch's attention weights over one sequence, if the caller wants them."""
        if self.weights is not None:
            self.weights[reads, self.place] = weights

    def add_auxiliary_loss(self, make: Callable[[], Tensor]) -> None:
        """Add `make()`, a scalar, to the training loss."""
        if self.losses is not None:  # by place, so that a layer that is computed again counts once
            self.losses[self.place] = make()

    def present(self, length: int) -> Bool[Tensor, "batch length"] | None:
        """Which of the last `length` tokens are real; None: all."""
        return None if self.valid is None else self.valid[:, -length:]

    def counted_tokens(self, length: int) -> Bool[Tensor, "batch length"] | None:
        """Which of the last `length` tokens count in auxiliary losses; None: all."""
        present = self.present(length)
        return self.counted if present is None else present if self.counted is None else present & self.counted
