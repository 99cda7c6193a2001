"""A mask as concatenated runs of tokens without padding: the variable-length form of flash-attn and xformers."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.attention.kernels.biases import fully_masked
from pairform.blocks.attention.masks import JoinedMask


@dataclass(frozen=True)
class Runs:
    """Each run is one document of one row, without padding. Its last query is at the position of its last key.

    queries, keys: indices of the tokens of all runs in the flattened batch; None is all.
    window:        how many tokens to its left and right a query attends to; None is all.
    """

    queries: Int[Tensor, "total_queries"] | None
    keys: Int[Tensor, "total_keys"] | None
    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    window: tuple[int | None, int | None]


def runs_of(mask: JoinedMask, batch: int, device: torch.device) -> Runs | None:
    """The runs of a mask, without fully masked queries, and with a window also without padded ones. None if runs cannot
    represent the mask: two sequences under one softmax, images in a causal stack, or a window over tokens with padding between
    them.
    """
    part = mask.parts[0]
    if len(mask.parts) > 1 or part.blocks is not None:
        return None
    if not part.padded:
        # each row is a run; runs align the last query with the last key
        ends_align = part.query_start + part.query_length == part.key_start + part.key_length
        lengths = ((part.query_length,) * batch, (part.key_length,) * batch)
        return Runs(None, None, *lengths, part.window) if ends_align or part.window == (None, None) else None
    query_mask, key_mask = real_tokens(mask, batch, device)
    # a run is a pair of row and segment; number the pairs that occur
    ids = [documents(labels, kept) for labels, kept in ((part.query_segments, query_mask), (part.key_segments, key_mask))]
    # `unique` sorts the pairs, so that queries and keys list the runs in the same order
    numbers = torch.unique(torch.cat(ids), dim=0, return_inverse=True)[1]
    of_queries, of_keys = numbers.split([len(found) for found in ids])
    # keys of runs without any query would not be read
    has_query = torch.isin(of_keys, of_queries)
    queries = Tokens(query_mask.flatten().nonzero()[:, 0], of_queries, part.query_start, part.query_length)
    keys = Tokens(key_mask.flatten().nonzero()[:, 0][has_query], of_keys[has_query], part.key_start, part.key_length)
    if part.window != (None, None) and not aligned(queries, keys):
        return None
    return Runs(queries.sorted(), keys.sorted(), queries.lengths(), keys.lengths(), part.window)


def real_tokens(mask: JoinedMask, batch: int, device: torch.device) -> tuple[Bool[Tensor, "b q"], Bool[Tensor, "b k"]]:
    """Masks of the queries that attend to some key, and of the keys that are not padding. With a window, queries at padding are
    excluded too, since they would shift the others."""
    (part,) = mask.parts
    every = torch.ones(batch, part.key_length, dtype=torch.bool, device=device)
    key_mask = every if part.valid is None else every & part.valid
    without_keys = fully_masked(mask, device)
    assert without_keys is not None, "it is padded"
    query_mask = ~without_keys[:, 0, :, 0].expand(batch, -1)
    if part.window != (None, None):
        # queries are the tokens of the last keys, whose padding is known
        begin = part.query_start - part.key_start
        query_mask = query_mask & key_mask[:, begin : begin + part.query_length]
    return query_mask, key_mask


def documents(segments: Tensor | None, kept: Bool[Tensor, "batch length"]) -> Int[Tensor, "kept 2"]:
    """Row and segment of each kept token."""
    rows = kept.nonzero()[:, 0]
    return torch.stack((rows, torch.zeros_like(rows) if segments is None else segments[kept].long()), 1)


@dataclass(frozen=True)
class Tokens:
    """Tokens of runs.

    places:     indices in the flattened batch.
    runs:       the run of each token.
    start:      position in the sequence of the first token of a row.
    row_length: tokens in a row of the batch.
    """

    places: Int[Tensor, "total"]
    runs: Int[Tensor, "total"]
    start: int
    row_length: int

    def sorted(self) -> Int[Tensor, "total"]:
        return self.places[self.runs.argsort(stable=True)]

    def lengths(self) -> tuple[int, ...]:
        # a run whose queries are all fully masked has no queries and no keys left
        return tuple(count for count in self.runs.bincount().tolist() if count)

    def ends(self) -> tuple[Int[Tensor, "runs"], Bool[Tensor, ""]]:
        """The last position of each run in its sequence, and whether no run has a gap."""
        # the position of each token in its row
        sequence = self.places % self.row_length + self.start
        count = self.runs.bincount()
        first = torch.full_like(count, torch.iinfo(count.dtype).max).scatter_reduce(0, self.runs, sequence, "amin")
        last = torch.full_like(count, -1).scatter_reduce(0, self.runs, sequence, "amax")
        return last, ((last - first + 1 == count) | (count == 0)).all()


def aligned(queries: Tokens, keys: Tokens) -> bool:
    """Whether distances within runs equal those within rows."""
    (last_query, whole), (last_key, gapless) = queries.ends(), keys.ends()
    return bool(whole & gapless & torch.equal(last_query, last_key))


def gathered(
    heads: Float[Tensor, "batch heads length head_dim"], places: Tensor | None
) -> Float[Tensor, "total heads head_dim"]:
    """The tokens of all runs, concatenated."""
    flat = rearrange(heads, "b h l d -> (b l) h d")
    return flat if places is None else flat[places]


def scattered(mixed: Float[Tensor, "total heads head_dim"], places: Tensor | None, batch: int, length: int) -> Tensor:
    """The inverse of `gathered`: `[batch, heads, length, head_dim]`, zero at tokens of no run."""
    if places is not None:
        mixed = mixed.new_zeros(batch * length, *mixed.shape[1:]).index_copy(0, places, mixed)
    return rearrange(mixed, "(b l) h d -> b h l d", b=batch)
