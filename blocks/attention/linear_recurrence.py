"""Linear attention with a decay: in parallel over chunks for several tokens, and as a recurrence for one token."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

CHUNK = 64
"""The most tokens in a chunk. Scores exist only within a chunk; between chunks there is only a state."""


class Tokens(NamedTuple):
    """The inputs of the recurrence.

    decay:     the logarithm of the factor on the state at each token, 0 or less.
    documents: numbers of the documents packed in a row: of the last earlier token, then of these. None: one document per row.
    """

    queries: Float[Tensor, "batch heads length head_dim"]
    keys: Float[Tensor, "batch heads length head_dim"]
    values: Float[Tensor, "batch heads length value_dim"]
    decay: Float[Tensor, "batch heads length"]
    documents: Int[Tensor, "batch length_and_one"] | None = None


State = Float[Tensor, "batch heads head_dim value_dim"]


def stepped(tokens: Tokens, state: State) -> tuple[Tensor, State]:
    """The output `q S` of one token, `[batch, heads, 1, value_dim]`, and the state after it, `S = exp(decay) S + k v`."""
    kept = tokens.decay.exp()[..., None]
    if tokens.documents is not None:
        same = tokens.documents[:, 0] == tokens.documents[:, 1]
        kept = kept * same[:, None, None, None]
    state = kept * state + tokens.keys.mT @ tokens.values
    return tokens.queries @ state, state


def chunked(tokens: Tokens, state: State) -> tuple[Tensor, State]:
    """The output of each token, `[batch, heads, length, value_dim]`, and the state after the last one.

    Numerically stable for any decay: each exponent is a sum of decays between two tokens, and never above 0 (Sun et al. 2023,
    arXiv 2307.08621, section 2.1; Dao and Gu 2024, arXiv 2405.21060, section 6).
    """
    length = tokens.queries.shape[2]
    size = CHUNK if torch.compiler.is_compiling() else min(CHUNK, max(length, 1))  # one compiled graph for all lengths
    queries, keys, values, decay, documents = filled(tokens, -length % size)
    queries, keys, values = (rearrange(part, "b h (n c) d -> b h n c d", c=size) for part in (queries, keys, values))
    # sums of logarithms: from the chunk's beginning to each token, itself included, [batch, heads, chunks, tokens]
    since = rearrange(decay, "b h (n c) -> b h n c", c=size).cumsum(-1)
    visible = torch.ones(size, size, dtype=torch.bool, device=keys.device).tril()
    # from after each token to the chunk's end
    until = since[..., -1:] - since
    start = functional.pad(since[..., -1].cumsum(-1), (1, 0))  # decay before each chunk, and after the last
    before = torch.ones(start.shape[-1], start.shape[-1], dtype=torch.bool, device=keys.device).tril()
    from_start = since
    if documents is not None:
        # no decay factor reaches across a document boundary
        own = rearrange(documents[:, 1:], "b (n c) -> b 1 n c", c=size)
        ends = torch.cat((documents[:, None, :1], own[..., -1]), -1)
        visible = visible & (own[..., :, None] == own[..., None, :])
        until = until.masked_fill(own != ends[..., 1:, None], -torch.inf)
        before = before & (ends[..., :, None] == ends[..., None, :])
        from_start = from_start.masked_fill(own != ends[..., :-1, None], -torch.inf)
    # what each chunk adds to the state, and from it the state before each chunk and after the last
    added = (keys * until.exp()[..., None]).mT @ values
    # the given state stands for a chunk before the first: [batch, heads, chunks + 1, head_dim, value_dim]
    whole = torch.cat((state[:, :, None], added), 2)
    states = torch.einsum("bhnm,bhmkv->bhnkv", share(start, before), whole)
    # within the chunk, plus from the state before it
    outputs = (queries @ keys.mT * share(since, visible)) @ values + (queries * from_start.exp()[..., None]) @ states[:, :, :-1]
    return rearrange(outputs, "b h n c v -> b h (n c) v")[:, :, :length], states[:, :, -1]


def share(sums: Float[Tensor, "... length"], visible: Tensor) -> Float[Tensor, "... length length"]:
    """The factor that remains of each token's (column's) contribution at each later token (row); zero where not `visible`.

    sums: the cumulative decays, `[..., length]`.
    """
    # masked before exp: the exponents above the diagonal are positive and might overflow
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(~visible, -torch.inf).exp()


def filled(tokens: Tokens, more: int) -> Tokens:
    """`tokens` with `more` tokens appended that leave the state unchanged."""
    # keys of zero add nothing, and a decay of 0 is a factor of 1
    queries, keys, values = (functional.pad(part, (0, 0, 0, more)) for part in (tokens.queries, tokens.keys, tokens.values))
    documents = tokens.documents
    if documents is not None:
        documents = torch.cat((documents, documents[:, -1:].expand(-1, more)), 1)
    return Tokens(queries, keys, values, functional.pad(tokens.decay, (0, more)), documents)
