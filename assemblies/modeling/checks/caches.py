"""Checks that a cache from an earlier call fits the model, the source and the prompt of this one."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.tensors import looks, refuse
from pairform.assemblies.specs.canonical import canonical_stack
from pairform.assemblies.specs.stack import StackSpec
from pairform.blocks.cache import Cache

CHANNELS = 16
"""Channels of the source's hidden states that a cache keeps to recognise it."""
APART = 0.2
"""A channel has changed if it differs by more than this fraction of its largest value, which exceeds rounding in any dtype."""
MANY = 0.25
"""A row has another source if more than this fraction of its channels has changed. One different token changes nearly all."""
ANOTHER = "Start with an empty `pairform.Cache()` for another source."


class Owner(NamedTuple):
    """The model that filled a cache: the decoder's spec, and the dtype of the weights."""

    spec: StackSpec
    dtype: torch.dtype


def check_same_model(model: ModelParts, cache: Cache) -> None:
    """Record the model in an empty cache. Raise `InputError` for a cache of another model or on another device.

    Models whose decoders have equal layers, such as a model and its copy, are not distinguished.
    """
    weight = next(model.parameters())
    spec, dtype = own = Owner(model.spec.stacks["decoder"], weight.dtype)
    if cache.batch is None:
        cache.owner = own
        return
    known = cache.owner if isinstance(cache.owner, Owner) else own  # compiled code records nothing
    if known.spec is not spec or cache.owner is None:
        places = {(index, name) for index, layer in enumerate(spec.layers) for name in layer.present}
        fits = cache.own.keys() | cache.states.keys() | cache.source.keys() <= places
        if not fits or not (known.spec == spec or canonical_stack(known.spec, None) == canonical_stack(spec, None)):
            remedy = "Start with an empty `pairform.Cache()` for each model."
            refuse("cache", "keys and values of another model", "those of this model's decoder", remedy)
    if known.dtype != dtype:
        refuse("cache", f"keys and values of a model in {known.dtype}", f"some of one in {dtype}, as this model's weights are")
    held = cache.device or weight.device
    if held != weight.device and "meta" not in (held.type, weight.device.type):
        refuse("cache", f"keys and values on {held}", f"some on {weight.device}, as the model's weights")
    cache.owner = own


def check_same_source(model: ModelParts, cache: Cache, hidden: Float[Tensor, "batch length width"]) -> None:
    """Record the source in a cache without one. Raise `InputError` for a cache with keys and values of another source."""
    sampled = hidden.detach()[..., :: max(1, hidden.shape[2] // CHANNELS)]
    if not cache.source:
        cache.read = sampled.clone()
        return
    if cache.read is None:
        return
    if cache.read.shape[:2] != hidden.shape[:2]:
        found = "keys and values of {} rows of {} tokens".format(*cache.read.shape[:2])
        refuse("cache", found, "those of the source, {} rows of {}".format(*hidden.shape[:2]), ANOTHER)
    if not looks(model, hidden) or model.training:  # dropout changes the hidden states from call to call
        return
    now = sampled.float()
    # [batch, channels], the maximum over tokens
    apart = (now - cache.read.float()).abs().amax(1) / now.abs().amax(1)
    if (apart > APART).float().mean(1).gt(MANY).any():
        refuse("cache", "keys and values of another source", "those of the source of this call", ANOTHER)


def check_same_beginning(
    model: ModelParts, cache: Cache, prompt: Int[Tensor, "batch prompt"], valid: Bool[Tensor, "batch prompt"] | None
) -> None:
    """Raise `InputError` if the prompt does not begin with the tokens recorded in the cache."""
    if cache.tokens is None or not looks(model, prompt):
        return
    known = cache.tokens.shape[1]
    other = prompt[:, :known] != cache.tokens
    if valid is not None:
        other &= valid[:, :known]
    if other.any():
        row, place = other.nonzero()[0].tolist()
        found = f"the token {int(cache.tokens[row, place])} at place {place} of row {row}"
        refuse("cache", found, f"{int(prompt[row, place])}, as in the prompt", "Start with an empty `pairform.Cache()`.")
