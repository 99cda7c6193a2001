"""Runs a decoder on the prompt, and then on one token of each row at a time."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.assemblies.generation.compiled_step import CompiledStep, bucket, logits_of
from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.inputs import StackInputs
from pairform.blocks.attention.mask_spec import MaskSpec
from pairform.blocks.attention.projections import AttentionHeads
from pairform.blocks.attention.self_attention import OwnSequenceAttention
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.blocks.positions.rotary_scaling import LongRopeScaling
from pairform.registry import InputError, Problem

PIECE = 4096
"""The largest number of prompt tokens in one forward pass, if the prompt can be split: it limits the memory of activations."""

NOT_FINITE = Problem(
    "model",
    "NaN or infinite logits",
    "finite logits",
    "The weights may contain such values, or the dtype may overflow: the largest float16 number is 65504.",
)


class Decoding:
    """Computes next-token logits of growing sequences.

    first:   the number of padding tokens on the left of each row, `[batch, 1]`; None if there are none.
    compile: use a compiled step for single tokens. Everything that changes between steps is in tensors, and the lengths of
             buffers and sources are rounded up to buckets, so that all steps, and other sequences in the same bucket, share one
             compilation. On a CUDA device the steps of one sequence are also one CUDA graph.
    """

    def __init__(
        self,
        model: ModelParts,
        source: Source | None,
        cache: Cache | None,
        first: Int[Tensor, "batch 1"] | None,
        *,
        length: int,
        compile: bool = False,
    ) -> None:
        """length: the largest number of tokens per row."""
        self.model, self.source, self.cache, self.first = model, source, cache, first
        self.prompt: int | None = None
        device = next(model.parameters()).device
        self.places = torch.arange(length, device=device)[None]
        self.valid = None if first is None else self.places >= first
        self.turns = turning_lengths(model, first) if cache is not None else frozenset()
        self.step = CompiledStep(model) if compile else None
        if compile and cache is not None:
            cache.room = max(cache.room, bucket(length))

    def __call__(self, tokens: Int[Tensor, "batch length"], pixels: Tensor | None = None) -> Float[Tensor, "batch vocabulary"]:
        """The logits of the next token after `tokens`. Tokens that are already in the cache are not processed again."""
        length, begin = tokens.shape[1], 0 if self.cache is None else self.cache.length
        if self.prompt is None:
            self.prompt = length
        if self.cache is not None and any(begin <= turn < length for turn in self.turns) and begin:
            # the rotation of all keys changes
            self.cache.restart()
            begin = 0
        # the compiled step takes one token after others that are in the cache
        if self.step is not None and self.cache is not None and self.cache.length and begin == length - 1:
            # contiguous, or its stride would be that of the whole sequence
            token = tokens[:, begin:].clone(memory_format=torch.contiguous_format)
            return self.step(token, self.first, self.source, self.cache)
        few = length - begin <= PIECE  # as in every step: skips the search through all layers
        alone = self.model.all_finished is None  # other processes must run the decoder as often
        whole = few or not alone or self.cache is None or pixels is not None or not divisible(self.model)
        ends = [length] if whole else [*range(begin + PIECE, length, PIECE), length]
        for end in ends:
            hidden = self.run(tokens, begin, end, pixels)
            begin = end
        return logits_of(self.model, hidden)

    def finish(self, length: int) -> None:
        """Prepare the cache for another call, after a sequence whose first `length` tokens were processed."""

    def stops(self, finished: Bool[Tensor, "..."]) -> bool:
        """Whether everything has finished, in all processes that share the model: each takes part in every step."""
        every = self.model.all_finished
        return bool(finished.all() if every is None else every(finished.all()))

    def run(self, tokens: Tensor, begin: int, end: int, pixels: Tensor | None) -> Tensor:
        decoder = self.model.decoder
        assert decoder is not None
        positions = self.places[:, begin:end]
        inputs = StackInputs(
            tokens[:, begin:end],
            valid=None if self.valid is None else self.valid[:, :end],
            positions=positions if self.first is None else positions - self.first,
            pixel_values=pixels,
            prefix_lengths=self.prefix(len(tokens), begin),
            prompt_length=self.prompt,
        )
        hidden: Tensor = decoder(inputs, source=self.source, cache=self.cache).hidden
        return hidden

    def prefix(self, rows: int, begin: int) -> Int[Tensor, " batch"] | None:
        """The number of prompt tokens in each row, if the decoder treats the prompt as a prefix; None after the first pass."""
        assert self.model.decoder is not None
        if self.prompt is None or not self.model.decoder.spec.prefixed or (self.cache is not None and begin > 0):
            return None
        whole = torch.full((rows,), self.prompt, device=self.places.device)
        return whole if self.first is None else whole - self.first[:, 0]

    def spread(
        self, times: int, prompt: Int[Tensor, "batch prompt"], pixels: Tensor | None
    ) -> tuple[Int[Tensor, "rows prompt"], Tensor | None]:
        """Repeat each row `times` times; returns the prompt and its images with repeated rows.

        The repeated rows share the source's keys and values if all kernels support it.
        """
        assert self.model.decoder is not None
        if self.cache is not None:
            blocks = (module for module in self.model.decoder.modules() if isinstance(module, AttentionHeads))
            self.cache = self.cache.spread(times, share=all(block.kernel in ("auto", "eager") for block in blocks))
        if self.source is not None:
            if self.cache is None:  # with a cache they are not read again
                self.source = self.source.each(lambda hidden: hidden.repeat_interleave(times, 0))
            valid = None if self.source.valid is None else self.source.valid.repeat_interleave(times, 0)
            self.source = replace(self.source, valid=valid)
        if self.first is not None:
            self.first = self.first.repeat_interleave(times, 0)
            self.valid = self.places >= self.first
        vision = self.model.decoder.vision
        if pixels is not None and vision is not None:
            pixels = vision.repeated(pixels, prompt, times)
        return prompt.repeat_interleave(times, 0), pixels

    def reorder(self, rows: Int[Tensor, " batch"]) -> None:
        """Continue with these rows, in this order."""
        if self.cache is not None:
            self.cache = self.cache.rows(rows)


class Finite:
    """Rejects NaN and infinite scores: at each step on a CPU, elsewhere only in `check`, which needs a synchronisation."""

    def __init__(self, device: torch.device, problem: Problem = NOT_FINITE) -> None:
        self.total, self.problem = torch.zeros((), device=device), problem

    def add(self, best: Float[Tensor, " batch"]) -> None:
        """Add the scores of one step. best: the largest score of each row."""
        total = best.sum(dtype=torch.float32)  # NaN and infinity stay in a sum
        if best.device.type == "cpu":
            self.total = total
            self.check()
        else:
            self.total = self.total + total

    def check(self) -> None:
        if not math.isfinite(self.total.item()):
            raise InputError(self.problem)


def divisible(model: ModelParts) -> bool:
    """Whether a prompt may be processed in chunks: no token of the decoder attends to a later one, and no rotation depends on
    the length."""
    assert model.decoder is not None
    in_order = all(mask.causal and not mask.prefix for mask in own_masks(model))
    rotations = (module.spec.scaling for module in model.decoder.modules() if isinstance(module, RotaryPosition))
    return in_order and not any(scaling.by_length for scaling in rotations)


def turning_lengths(model: ModelParts, first: Int[Tensor, "batch 1"] | None) -> frozenset[int]:
    """The lengths, padding included, beyond which the rotation of earlier tokens changes in some row."""
    assert model.decoder is not None
    rotations = (module.spec.scaling for module in model.decoder.modules() if isinstance(module, RotaryPosition))
    lengths = {scaling.original_length for scaling in rotations if isinstance(scaling, LongRopeScaling)}
    padding = {0} if first is None or not lengths else set(first.flatten().tolist())
    return frozenset(length + skipped for length in lengths for skipped in padding)


def cacheable(model: ModelParts) -> bool:
    """Whether keys and values of earlier tokens stay valid when tokens are appended: the decoder is causal, except perhaps
    within a prefix."""
    return all(mask.causal for mask in own_masks(model))


def own_masks(model: ModelParts) -> Iterator[MaskSpec]:
    """The masks over the decoder's own tokens, layer by layer."""
    assert model.decoder is not None
    return (module.mask for module in model.decoder.modules() if isinstance(module, OwnSequenceAttention))
