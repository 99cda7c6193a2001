"""Checks that a cache from an earlier call belongs to the source and the prompt of this one."""

from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.assemblies.checks import looks, refuse
from pairform.blocks.cache import Cache

if TYPE_CHECKING:
    from pairform.assemblies.model import Model

CHANNELS = 16
"""How many channels of the source's hidden states a cache keeps to recognise it."""
APART = 0.2
"""A channel has changed if it differs by more than this fraction of its largest value; rounding in no dtype reaches that."""
MANY = 0.25
"""A row is of another source if more than this fraction of its channels has changed. One other token changes nearly all."""
ANOTHER = "Start with an empty `pairform.Cache()` for another source."


def check_same_source(model: "Model", cache: Cache, hidden: Float[Tensor, "batch length width"]) -> None:
    """Record the source in a cache that has none yet; refuse a cache that holds keys and values of another source."""
    if not cache.source:
        cache.read = hidden.detach()[..., :: max(1, hidden.shape[2] // CHANNELS)].clone()
        return
    if cache.read is None:
        return
    if cache.read.shape[:2] != hidden.shape[:2]:
        found = "keys and values of {} rows of {} tokens".format(*cache.read.shape[:2])
        refuse("cache", found, "those of the source, {} rows of {}".format(*hidden.shape[:2]), ANOTHER)
    if not looks(model, hidden) or model.training:  # dropout changes the hidden states from call to call
        return
    now = hidden.detach()[..., :: max(1, hidden.shape[2] // CHANNELS)].float()
    apart = (now - cache.read.float()).abs().amax(1) / now.abs().amax(1)
    if (apart > APART).float().mean(1).gt(MANY).any():
        refuse("cache", "keys and values of another source", "those of the source of this call", ANOTHER)


def check_same_beginning(
    model: "Model", cache: Cache, prompt: Int[Tensor, "batch prompt"], valid: Bool[Tensor, "batch prompt"] | None
) -> None:
    """Refuse a prompt that does not begin with the tokens recorded in the cache."""
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
