"""A mask as runs of tokens of several lengths, one after the other: the form that flash-attn and xformers take."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.blocks.attention.masks import JoinedMask


@dataclass(frozen=True)
class Runs:
    """Each run is one document of one row, without padding. Its last query is at the place of its last key.

    queries, keys: the places of the tokens of all runs in the batch, rows one after the other; None is all.
    window:        how many tokens a query sees to its left and right; None is all.
    """

    queries: Int[Tensor, "total_queries"] | None
    keys: Int[Tensor, "total_keys"] | None
    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    window: tuple[int | None, int | None]


def runs_of(mask: JoinedMask, batch: int, device: torch.device) -> Runs | None:
    """None for a mask that runs cannot say: two sequences under one softmax, pictures in a causal stack, or a window over
    tokens with padding among them. Queries that see no key are left out, and under a window those that
    are padding."""
    part = mask.parts[0]
    if len(mask.parts) > 1 or part.blocks is not None:
        return None
    if not part.padded:
        level = part.query_start + part.query_length == part.key_start + part.key_length
        lengths = ((part.query_length,) * batch, (part.key_length,) * batch)
        return Runs(None, None, *lengths, part.window) if level or part.window == (None, None) else None
    asked, seen = real_tokens(mask, batch, device)
    ids = [documents(labels, kept) for labels, kept in ((part.query_segments, asked), (part.key_segments, seen))]
    numbers = torch.unique(torch.cat(ids), dim=0, return_inverse=True)[1]
    of_queries, of_keys = numbers.split([len(found) for found in ids])
    answered = torch.isin(of_keys, of_queries)
    queries = Tokens(asked.flatten().nonzero()[:, 0], of_queries, part.query_start, part.query_length)
    keys = Tokens(seen.flatten().nonzero()[:, 0][answered], of_keys[answered], part.key_start, part.key_length)
    if part.window != (None, None) and not aligned(queries, keys):
        return None
    return Runs(queries.sorted(), keys.sorted(), queries.lengths(), keys.lengths(), part.window)


def real_tokens(mask: JoinedMask, batch: int, device: torch.device) -> tuple[Bool[Tensor, "b q"], Bool[Tensor, "b k"]]:
    """Which queries see some key (and under a window are not padding, since they would move the others), and which keys are
    not padding."""
    (part,) = mask.parts
    every = torch.ones(batch, part.key_length, dtype=torch.bool, device=device)
    seen = every if part.valid is None else every & part.valid
    lost = mask.lost(device)
    assert lost is not None, "it is padded"
    asked = ~lost[:, 0, :, 0].expand(batch, -1)
    if part.window != (None, None):
        begin = part.query_start - part.key_start
        asked = asked & seen[:, begin : begin + part.query_length]
    return asked, seen


def documents(segments: Tensor | None, kept: Bool[Tensor, "batch length"]) -> Int[Tensor, "kept 2"]:
    """Row and segment of each kept token."""
    rows = kept.nonzero()[:, 0]
    return torch.stack((rows, torch.zeros_like(rows) if segments is None else segments[kept].long()), 1)


@dataclass(frozen=True)
class Tokens:
    """Tokens by their places in the batch, with the number of each one's run; `start` is where a row begins in its sequence."""

    places: Int[Tensor, "total"]
    runs: Int[Tensor, "total"]
    start: int
    row_length: int

    def sorted(self) -> Int[Tensor, "total"]:
        return self.places[self.runs.argsort(stable=True)]

    def lengths(self) -> tuple[int, ...]:
        return tuple(count for count in self.runs.bincount().tolist() if count)

    def ends(self) -> tuple[Int[Tensor, "runs"], Bool[Tensor, ""]]:
        """The last place of each run in its sequence, and whether each run is without a gap."""
        sequence = self.places % self.row_length + self.start
        count = self.runs.bincount()
        first = torch.full_like(count, torch.iinfo(count.dtype).max).scatter_reduce(0, self.runs, sequence, "amin")
        last = torch.full_like(count, -1).scatter_reduce(0, self.runs, sequence, "amax")
        return last, ((last - first + 1 == count) | (count == 0)).all()


def aligned(queries: Tokens, keys: Tokens) -> bool:
    """Whether distances within runs are those within rows."""
    (last_query, whole), (last_key, gapless) = queries.ends(), keys.ends()
    return bool(whole & gapless & torch.equal(last_query, last_key))


def gathered(
    heads: Float[Tensor, "batch heads length head_dim"], places: Tensor | None
) -> Float[Tensor, "total heads head_dim"]:
    """The tokens of all runs."""
    flat = rearrange(heads, "b h l d -> (b l) h d")
    return flat if places is None else flat[places]


def scattered(mixed: Float[Tensor, "total heads head_dim"], places: Tensor | None, batch: int, length: int) -> Tensor:
    """Back at their places, `[batch, heads, length, head_dim]`; zero where no run has a token."""
    if places is not None:
        mixed = mixed.new_zeros(batch * length, *mixed.shape[1:]).index_copy(0, places, mixed)
    return rearrange(mixed, "(b l) h d -> b h l d", b=batch)
