"""Sequence packing: documents in one row, numbered by `segment_ids`, that do not attend to each other. Checks of prefixes."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.cache import Cache
from pairform.registry import InputError, Problem


def check_segments(spec: ModelSpec, source: Tensor | None, target: Tensor | None) -> None:
    """Raise `InputError` for segment IDs that do not fit the model: an encoder-decoder takes them in both stacks or none."""
    for argument, ids in (("segment_ids", source), ("decoder_segment_ids", target)):
        if ids is not None and (ids.ndim != 2 or ids.is_floating_point()):
            found = f"{str(ids.dtype).removeprefix('torch.')} of the shape {tuple(ids.shape)}"
            raise InputError(Problem(argument, found, "whole numbers, [batch, length]"))
    both = spec.encoder is not None and spec.decoder is not None
    if (target is not None) if not both else (source is None) != (target is None):
        found = f"segment_ids {'absent' if source is None else 'given'}, this {'absent' if target is None else 'given'}"
        raise InputError(Problem("decoder_segment_ids", found, "both for an encoder-decoder, else segment_ids alone"))
    if source is not None and spec.head.pools:
        raise InputError(Problem("segment_ids", "packed rows for a head with one output per row", "one document per row"))


def check_prefix(spec: ModelSpec, lengths: Tensor, cache: Cache | None, segments: Tensor | None) -> None:
    """Raise `InputError` for prefix lengths that the decoder would ignore or could not apply."""
    problem = None
    if spec.decoder is None or not spec.decoder.prefixed:
        problem = Problem("prefix_lengths", "a prefix for a model that reads none", "a decoder with `prefix` in a mask")
    elif lengths.ndim != 1 or lengths.is_floating_point():
        found = f"{str(lengths.dtype).removeprefix('torch.')} of the shape {tuple(lengths.shape)}"
        problem = Problem("prefix_lengths", found, "whole numbers, [batch]")
    elif segments is not None:
        problem = Problem("prefix_lengths", "a prefix in packed rows", "one document per row")
    elif cache is not None and cache.length:
        problem = Problem("prefix_lengths", f"a prefix after {cache.length} cached tokens", "the prefix in the first call")
    if problem is not None:
        raise InputError(problem)


def begins(segments: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """True at the first token of each document."""
    return functional.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)


def places_in_segments(
    segments: Int[Tensor, "batch length"], valid: Bool[Tensor, "batch length"] | None
) -> Int[Tensor, "batch length"]:
    """The position of each token in its document, counted from the first that is not padding."""
    places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    document = begins(segments).long().cumsum(1) - 1
    real = places if valid is None else places.masked_fill(~valid, segments.shape[1])
    first = torch.full_like(places, segments.shape[1]).scatter_reduce(1, document, real, "amin")
    return places - first.gather(1, document)
