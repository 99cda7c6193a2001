"""Checks of the options of `generate`."""

from collections.abc import Iterable
from typing import Any

from pairform.assemblies.generation.decoding import cacheable
from pairform.assemblies.modeling.checks.arguments import described, flag, integer
from pairform.assemblies.modeling.interface import ModelInterface
from pairform.blocks.cache import Cache
from pairform.registry import InputError, Problem

LONGEST = 1 << 20
"""The most new tokens in one call: their memory is allocated before the first step."""


def check_options(model: ModelInterface, cache: Cache | None, streamer: Any, num_beams: int, **flags: bool) -> None:
    """Refuse options that are of the wrong type or exclude each other."""
    for name, value in flags.items():
        flag(name, value)
    if streamer is not None and not callable(streamer):
        expected = "a function that is called with each step's tokens, `[batch]`"
        raise InputError(Problem("streamer", described(streamer), expected, "Of transformers' streamers it is `.put`."))
    if cache is not None and not flags["use_cache"]:
        raise InputError(Problem("cache", "a cache with use_cache=False", "one or the other"))
    if cache is not None and not cacheable(model):
        found = "a decoder whose tokens see later ones, so that all is computed anew with each"
        raise InputError(Problem("cache", found, "no cache, or a causal mask"))
    if num_beams > 1:
        for name, unable in (("do_sample", flags["do_sample"]), ("streamer", streamer)):
            if unable:
                raise InputError(Problem(name, f"{name} beside num_beams={num_beams}", "one or the other"))


def end_tokens(ids: Any, vocabulary: int) -> tuple[int, ...]:
    """`eos_token_id` as ids: one, several, or a tensor of them."""
    if isinstance(ids, str | bytes):
        raise InputError(Problem("eos_token_id", described(ids), "a token id, or a list of them"))
    try:
        each = [ids] if not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) == 0 else [*ids]
    except TypeError:
        each = [ids]
    return tuple(integer("eos_token_id", one, 0, vocabulary - 1) for one in each)
