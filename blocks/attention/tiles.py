"""The arithmetic of chunked attention: one tile of scores at a time, in buffers that every tile uses again."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from pairform.blocks.attention.buffers import Buffers
from pairform.blocks.attention.masks import JoinedMask
from pairform.blocks.attention.packing import of_row
from pairform.blocks.attention.work import Parts, Work, by_distance, lowest, of_diagonals

ON_CPU, ELSEWHERE = 1 << 18, 1 << 26
"""Scores in a tile: on a CPU for each thread, so few that its core's caches hold the buffers of them."""
FEWEST, MOST = 32, 256
"""Queries in a tile, times those that share a key."""
WIDER = 1.15
"""A tile of twice the queries is quicker unless it sees more than so many times the keys, as it does in a window."""


class Tile(NamedTuple):
    """Some queries of some heads of one row. bias: `[queries or 1, keys]`, what a mask adds to scores. number: its place."""

    row: int
    queries: slice
    heads: slice
    kv_heads: slice
    keys: tuple[slice, ...]
    bias: Tensor | None
    number: int


class Tiles:
    """Attention of `queries` `[batch, heads, q, head_dim]` to parts of keys and values `[batch, kv_heads, k, head_dim]`."""

    def __init__(self, queries: Tensor, keys: Parts, values: Parts, work: Work, seed: int | None) -> None:
        self.queries = queries
        self.keys, self.values = (tuple(part.contiguous() for part in parts) for parts in (keys, values))
        self.work, self.seed = work, seed
        self.kv_heads = keys[0].shape[1]
        self.groups = queries.shape[1] // self.kv_heads
        self.wide = torch.promote_types(queries.dtype, torch.float32)
        self.biases = {place: bias.to(self.wide) for place, bias in enumerate(work.biases) if bias is not None}
        self.buffer = Buffers(queries.device)

    def forward(self) -> Tensor:
        """`[batch, heads, q, head_dim]`."""
        mixed = torch.empty_like(self.queries, memory_format=torch.contiguous_format)
        for tile in self:
            weights, _ = self.weights(tile, self.of_queries(self.queries, tile))
            drop(weights, self.kept(tile, weights))
            self.write(mixed, tile, self.products(self.narrow(weights), self.of_keys(self.values, tile)))
        return mixed

    def backward(self, gradient: Tensor) -> list[Tensor]:
        """The gradients of queries, of each part of keys, of each part of values and of each bias, given the output's."""
        of_queries = torch.empty_like(self.queries, memory_format=torch.contiguous_format)
        of_keys, of_values = ([torch.zeros_like(part, dtype=self.wide) for part in parts] for parts in (self.keys, self.values))
        of_biases = {place: torch.zeros_like(bias) for place, bias in self.biases.items()}
        for tile in self:
            queries, given = self.of_queries(self.queries, tile), self.of_queries(gradient, tile)
            weights, slope = self.weights(tile, queries, slope=True)
            steps = self.scores("steps", given, self.of_keys(self.values, tile))
            kept = self.kept(tile, steps)
            drop(steps, kept)
            # softmax: a weight's gradient reaches its score as weight * (gradient - the weighted mean of gradients)
            mean = torch.mul(weights, steps, out=self.buffer("spare", tuple(weights.shape), self.wide)).sum(-1, keepdim=True)
            steps.sub_(mean).mul_(weights)
            for total, own in self.biased(tile, steps, of_biases):
                total += of_diagonals(own)
            steps.mul_(self.work.scale if slope is None else slope)
            drop(weights, kept)
            self.add(of_values, tile, self.narrow(weights), given)
            narrow = self.narrow(steps)
            self.add(of_keys, tile, narrow, queries)
            self.write(of_queries, tile, self.products(narrow, self.of_keys(self.keys, tile)))
        found = [part.to(self.queries.dtype) for part in (*of_keys, *of_values)]
        biases = (bias for bias in self.work.biases if bias is not None)
        return [of_queries, *found, *(total.to(like.dtype) for total, like in zip(of_biases.values(), biases, strict=True))]

    def weights(self, tile: Tile, queries: Tensor, *, slope: bool = False) -> tuple[Tensor, Tensor | None]:
        """Softmax of the tile's scores `[kv_heads, groups * queries, keys]`, and what a score grows by with q k, where a
        softcap bends it.
        """
        scores = self.scores("scores", queries, self.of_keys(self.keys, tile))
        bent = None
        cap = self.work.softcap
        if cap is None:
            scores.mul_(self.work.scale)
        else:
            # tanh(x) = 2 sigmoid(2 x) - 1, and a sigmoid is nine times as quick on a CPU; softmax does not see the constant
            torch.sigmoid(scores.mul_(2 * self.work.scale / cap), out=scores)
            if slope:
                bent = self.buffer("bent", tuple(scores.shape), self.wide).copy_(scores)
                bent.mul_(4 * self.work.scale).addcmul_(scores, scores, value=-4 * self.work.scale)
            scores.mul_(2 * cap)
        for numbers, own in self.biased(tile, scores, self.biases):
            own += by_distance(numbers, *own.shape[1:])
        if tile.bias is not None:
            scores.view(len(scores), self.groups, -1, scores.shape[-1]).add_(tile.bias)
        return torch.softmax(scores, -1, out=self.buffer("weights", tuple(scores.shape), self.wide)), bent

    def biased(self, tile: Tile, scores: Tensor, numbers: Mapping[int, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each part that has numbers by distance: those of the tile, and the part of its scores `[heads, queries, keys]`."""
        length = tile.queries.stop - tile.queries.start
        begin = 0
        for place, keys in enumerate(tile.keys):
            end = begin + keys.stop - keys.start
            if place in numbers:
                first = keys.start + self.queries.shape[2] - tile.queries.stop
                own = scores.view(-1, length, scores.shape[-1])[..., begin:end]
                yield numbers[place][tile.heads, first : first + own.shape[2] + length - 1], own
            begin = end

    def scores(self, name: str, queries: Tensor, keys: Parts) -> Tensor:
        """Queries times keys `[kv_heads, groups * queries, keys of all parts]`, in a buffer, at least in float32."""
        rows = tuple(queries.shape[:2])
        if len(keys) == 1 and self.wide == self.queries.dtype:
            return torch.bmm(queries, keys[0].mT, out=self.buffer(name, (*rows, keys[0].shape[1]), self.wide))
        scores = self.buffer(name, (*rows, sum(part.shape[1] for part in keys)), self.wide)
        begin = 0
        for part in keys:
            end = begin + part.shape[1]
            product = self.buffer("product", (*rows, end - begin), self.queries.dtype)
            (scores if len(keys) == 1 else scores[..., begin:end]).copy_(torch.bmm(queries, part.mT, out=product))
            begin = end
        return scores

    def products(self, weights: Tensor, parts: Parts) -> Tensor:
        """Weights over all parts' keys, times these: `[kv_heads, groups * queries, head_dim]`."""
        if len(parts) == 1:
            return torch.bmm(weights, parts[0])
        shares = torch.split(weights, [part.shape[1] for part in parts], dim=-1)
        return sum((share @ part for share, part in zip(shares[1:], parts[1:], strict=True)), start=shares[0] @ parts[0])

    def add(self, gradients: list[Tensor], tile: Tile, weights: Tensor, given: Tensor) -> None:
        """Weights of the tile's queries times what stands at these, added at its keys."""
        shares = torch.split(weights, [place.stop - place.start for place in tile.keys], dim=-1)
        for gradient, place, share in zip(gradients, tile.keys, shares, strict=True):
            gradient[tile.row, tile.kv_heads, place] += share.mT @ given

    def kept(self, tile: Tile, weights: Tensor) -> Tensor | None:
        """What dropout multiplies the tile's weights by, the same for the same tile; None without dropout."""
        if self.seed is None:
            return None
        generator = torch.Generator(weights.device).manual_seed(self.seed + tile.number)
        kept = torch.empty_like(weights).bernoulli_(1 - self.work.dropout, generator=generator)
        return kept.div_(1 - self.work.dropout)

    def narrow(self, weights: Tensor) -> Tensor:
        """In the dtype of queries."""
        if weights.dtype == self.queries.dtype:
            return weights
        return self.buffer("narrow", tuple(weights.shape), self.queries.dtype).copy_(weights)

    def of_queries(self, whole: Tensor, tile: Tile) -> Tensor:
        """The tile's `[kv_heads, groups * queries, head_dim]` of `[batch, heads, q, head_dim]`."""
        part = whole[tile.row, tile.heads, tile.queries]
        return part if self.groups == 1 else part.reshape(len(part) // self.groups, -1, part.shape[-1])

    def write(self, whole: Tensor, tile: Tile, part: Tensor) -> None:
        """Put the tile's `[kv_heads, groups * queries, head_dim]` into its place."""
        place = whole[tile.row, tile.heads, tile.queries]
        place.copy_(part.view(place.shape))

    def of_keys(self, parts: Parts, tile: Tile) -> Parts:
        """Each part's `[kv_heads, keys, head_dim]` that the tile sees."""
        return tuple(part[tile.row, tile.kv_heads, place] for part, place in zip(parts, tile.keys, strict=True))

    def __iter__(self) -> Iterator[Tile]:
        """Every tile; those of the same queries follow each other and share a bias."""
        batch, _, length, _ = self.queries.shape
        size, heads = self.sizes()
        number = 0
        for row in range(batch):
            mask = of_row(self.work.mask, row)
            for begin in range(0, length, size):
                queries = slice(begin, min(begin + size, length))
                keys, seen = mask.within(begin, queries.stop)
                bias = self.bias(seen)
                for first in range(0, self.kv_heads, heads):
                    end = min(first + heads, self.kv_heads)
                    of_queries = slice(first * self.groups, end * self.groups)
                    yield Tile(row, queries, of_queries, slice(first, end), keys, bias, number)
                    number += 1

    def sizes(self) -> tuple[int, int]:
        """How many queries and how many heads of keys make a tile."""
        cpu = self.queries.device.type == "cpu"
        scores = ON_CPU * torch.get_num_threads() if cpu else ELSEWHERE
        rows = MOST if cpu else scores

        def seen(rows: int) -> int:
            return self.work.mask.seen_by(max(rows // self.groups, 1))

        if cpu and seen(MOST) > WIDER * seen(MOST // 2):
            rows = MOST // 2
        while rows > FEWEST and rows * seen(rows) > scores:
            rows //= 2
        size = min(max(rows // self.groups, 1), self.queries.shape[2])
        heads = max(scores // (size * self.groups * self.work.mask.seen_by(size)), 1)
        return size, ceil(self.kv_heads / ceil(self.kv_heads / heads))

    def bias(self, mask: JoinedMask) -> Tensor | None:
        """The lowest number where a query may not attend, `[queries or 1, keys]`; None where it may everywhere."""
        bias = lowest(mask.dense(self.queries.device), self.wide)
        return None if bias is None else bias[0, 0]


def drop(weights: Tensor, kept: Tensor | None) -> None:
    """Multiply in place by what is kept."""
    if kept is not None:
        weights.mul_(kept)
