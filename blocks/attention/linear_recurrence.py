"""Linear attention with a decay: as a sum over chunks where many tokens are read at once, and as a recurrence for one."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

CHUNK = 64
"""Tokens at most whose products with each other are held; between chunks only states are."""


class Tokens(NamedTuple):
    """What a recurrence reads. decay: the logarithm of what each token leaves of the state, at most 0.

    documents: numbers of the documents packed in a row, of the last earlier token and then of these; None: each row is one.
    """

    queries: Float[Tensor, "batch heads length head_dim"]
    keys: Float[Tensor, "batch heads length head_dim"]
    values: Float[Tensor, "batch heads length value_dim"]
    decay: Float[Tensor, "batch heads length"]
    documents: Int[Tensor, "batch length_and_one"] | None = None


State = Float[Tensor, "batch heads head_dim value_dim"]


def stepped(tokens: Tokens, state: State) -> tuple[Tensor, State]:
    """What one token finds, `[batch, heads, 1, value_dim]`, and the state behind it: `exp(decay) state + k v`, times q."""
    kept = tokens.decay.exp()[..., None]
    if tokens.documents is not None:
        same = tokens.documents[:, 0] == tokens.documents[:, 1]
        kept = kept * same[:, None, None, None]
    state = kept * state + tokens.keys.mT @ tokens.values
    return tokens.queries @ state, state


def chunked(tokens: Tokens, state: State) -> tuple[Tensor, State]:
    """What each token finds, `[batch, heads, length, value_dim]`, and the state behind the last one.

    Exact, whatever the decay: all exponents are of sums over tokens between two, and none is above 0 (Sun et al. 2023, arXiv
    2307.08621, section 2.1; Dao and Gu 2024, arXiv 2405.21060, section 6).
    """
    length = tokens.queries.shape[2]
    size = CHUNK if torch.compiler.is_compiling() else min(CHUNK, max(length, 1))  # compiled code serves any length
    queries, keys, values, decay, documents = filled(tokens, -length % size)
    queries, keys, values = (rearrange(part, "b h (n c) d -> b h n c d", c=size) for part in (queries, keys, values))
    since = rearrange(decay, "b h (n c) -> b h n c", c=size).cumsum(-1)
    seen = torch.ones(size, size, dtype=torch.bool, device=keys.device).tril()
    until = since[..., -1:] - since
    start = functional.pad(since[..., -1].cumsum(-1), (1, 0))  # decay before each chunk, and behind the last
    before = torch.ones(start.shape[-1], start.shape[-1], dtype=torch.bool, device=keys.device).tril()
    reached = since
    if documents is not None:
        own = rearrange(documents[:, 1:], "b (n c) -> b 1 n c", c=size)
        ends = torch.cat((documents[:, None, :1], own[..., -1]), -1)
        seen = seen & (own[..., :, None] == own[..., None, :])
        until = until.masked_fill(own != ends[..., 1:, None], -torch.inf)
        before = before & (ends[..., :, None] == ends[..., None, :])
        reached = reached.masked_fill(own != ends[..., :-1, None], -torch.inf)
    added = (keys * until.exp()[..., None]).mT @ values
    whole = torch.cat((state[:, :, None], added), 2)
    states = torch.einsum("bhnm,bhmkv->bhnkv", share(start, before), whole)
    found = (queries @ keys.mT * share(since, seen)) @ values + (queries * reached.exp()[..., None]) @ states[:, :, :-1]
    return rearrange(found, "b h n c v -> b h (n c) v")[:, :, :length], states[:, :, -1]


def share(sums: Float[Tensor, "... length"], seen: Tensor) -> Float[Tensor, "... length length"]:
    """How much of what was there at one place is left at another, where it is seen."""
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(~seen, -torch.inf).exp()


def filled(tokens: Tokens, more: int) -> Tokens:
    """With tokens behind that leave the state as it is."""
    queries, keys, values = (functional.pad(part, (0, 0, 0, more)) for part in (tokens.queries, tokens.keys, tokens.values))
    documents = tokens.documents
    if documents is not None:
        documents = torch.cat((documents, documents[:, -1:].expand(-1, more)), 1)
    return Tokens(queries, keys, values, functional.pad(tokens.decay, (0, more)), documents)
