"""The forward and backward pass of chunked attention, one tile of scores at a time, in buffers that all tiles share."""

from collections.abc import Iterator, Mapping
from functools import reduce

import torch
from torch import Tensor

from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts
from pairform.blocks.attention.kernels.biases import by_distance, of_diagonals
from pairform.blocks.attention.kernels.tiles.buffers import Buffers
from pairform.blocks.attention.kernels.tiles.exponentials import LOG2E, exponentials, is_bounded
from pairform.blocks.attention.kernels.tiles.softcap import cap_scores, slope
from pairform.blocks.attention.kernels.tiles.tiling import Tile, tiles_of
from pairform.blocks.functional.dtypes import bounded, cast, split_scale
from pairform.blocks.functional.processor import wide_rows


class Tiles:
    """Attention of `queries` `[batch, heads, q, head_dim]` to parts of keys and values `[batch, kv_heads, k, head_dim]`."""

    def __init__(self, queries: Tensor, keys: Parts, values: Parts, call: AttentionCall, seed: int | None) -> None:
        self.queries, self.keys, self.values = queries, keys, values
        self.call, self.seed = call, seed
        self.kv_heads = keys[0].shape[1]
        self.groups = queries.shape[1] // self.kv_heads
        self.wide = torch.promote_types(queries.dtype, torch.float32)
        # of the products: tiles are widened where the CPU multiplies float32 faster
        self.dtype = queries.dtype if wide_rows(queries.device.type, queries.dtype) is None else self.wide
        self.biases = {place: bias.to(self.wide) for place, bias in enumerate(call.biases) if bias is not None}
        self.count = sum(part.shape[2] for part in keys)
        self.buffer = Buffers(queries.device)
        self.row_keys: Parts = ()
        self.row_values: Parts = ()
        self.bounded = False

    def forward(self) -> Tensor:
        """The output, `[batch, heads, q, head_dim]`; at fully masked queries the average of all values."""
        mixed = torch.empty_like(self.queries, memory_format=torch.contiguous_format)
        for tile in self.tiles():
            weights, sums, _ = self.weights(tile, self.of_queries(self.queries, tile))
            drop(weights, self.kept(tile, weights))
            part = self.products(self.narrow(weights), self.of_keys(self.row_values, tile))
            if sums is not None:
                part.div_(sums)
            if tile.hidden is not None and tile.hidden.fully_masked is not None:
                part = torch.where(tile.hidden.fully_masked, self.average(tile), self.by_group(part))
            self.write(mixed, tile, part)
        return mixed

    def backward(self, gradient: Tensor) -> list[Tensor]:
        """The gradients of queries, of each part of keys, of each part of values and of each bias.

        gradient: with respect to the output, `[batch, heads, q, head_dim]`.
        """
        # a query belongs to one tile, so its gradient is written once; those of keys and values are sums over tiles, which are
        # kept in at least float32
        of_queries = torch.empty_like(self.queries, memory_format=torch.contiguous_format)
        of_keys, of_values = ([torch.zeros_like(part, dtype=self.wide) for part in parts] for parts in (self.keys, self.values))
        of_biases = {place: torch.zeros_like(bias) for place, bias in self.biases.items()}
        for tile in self.tiles():
            queries, given = self.of_queries(self.queries, tile), self.of_queries(gradient, tile)
            if tile.hidden is not None and tile.hidden.fully_masked is not None:
                given = self.distribute_to_values(of_values, tile, given, tile.hidden.fully_masked)
            weights, _, slope = self.weights(tile, queries, backward=True)
            # the gradient of the attention weights, then in place that of the scores
            steps = self.scores("steps", given, self.of_keys(self.row_values, tile))
            kept = self.kept(tile, steps)
            drop(steps, kept)
            # softmax: a weight's gradient reaches its score as weight * (gradient - the weighted mean of gradients)
            mean = torch.mul(weights, steps, out=self.buffer("spare", tuple(weights.shape), self.wide)).sum(-1, keepdim=True)
            steps.sub_(mean).mul_(weights)
            for total, own in self.biased(tile, steps, of_biases):
                total += of_diagonals(own)
            # through scale and softcap, to the products of queries and keys
            steps.mul_(self.call.scale if slope is None else slope)
            # not before: the gradient of the softmax needs the weights without dropout
            drop(weights, kept)
            self.add(of_values, tile, self.narrow(weights), given)
            narrow = self.narrow(steps)
            self.add(of_keys, tile, narrow, queries)
            self.write(of_queries, tile, self.products(narrow, self.of_keys(self.row_keys, tile)))
        gradients = [part.to(self.queries.dtype) for part in (*of_keys, *of_values)]
        biases = (bias for bias in self.call.biases if bias is not None)
        return [of_queries, *gradients, *(total.to(like.dtype) for total, like in zip(of_biases.values(), biases, strict=True))]

    def tiles(self) -> Iterator[Tile]:
        row = None
        for tile in tiles_of(self.queries, self.kv_heads, self.call.mask, self.wide):
            if tile.row != row:
                row = tile.row
                self.row_keys, self.row_values = self.of_row("keys", self.keys, row), self.of_row("values", self.values, row)
                self.bounded = is_bounded(self.queries[row], self.row_keys, self.row_values, self.call)
            yield tile

    def of_row(self, name: str, parts: Parts, row: int) -> Parts:
        """The parts of one row of the batch, `[kv_heads, keys, head_dim]`, contiguous and in the dtype of the products."""
        own = [part[row] for part in parts]
        if own[0].dtype == self.dtype and all(part.is_contiguous() for part in own):
            return tuple(own)
        return tuple(
            self.buffer(f"{name} {number}", tuple(part.shape), self.dtype).copy_(part) for number, part in enumerate(own)
        )

    def weights(self, tile: Tile, queries: Tensor, *, backward: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The tile's attention weights `[kv_heads, groups * queries, keys]`; their sums `[kv_heads, groups * queries, 1]` if
        the products with them are still to be divided by these; for the backward pass, which needs the weights normalised,
        with a softcap the derivative of the scores with respect to the products of queries and keys.
        """
        cap, half = self.call.softcap, self.queries.dtype.itemsize < self.wide.itemsize
        unit = LOG2E if self.bounded else 1.0  # the base of the exponentials is 2 or e
        # in float16 a part of the scale is applied before the product, which might overflow otherwise; in float32 all that
        # scores are multiplied by, since there are fewer queries
        power, rest = split_scale(self.call.scale, self.dtype)
        rest *= unit if cap is None else 2 / cap
        if self.dtype == self.wide:
            power, rest = power * rest, 1.0
        scores = self.scores("scores", queries if power == 1 else queries * power, self.of_keys(self.row_keys, tile))
        scores = bounded(scores, self.dtype)
        bent = None
        if cap is not None:
            cap_scores(scores, rest / 2, cap * unit, self.buffer, half=half, sloped=backward)
            if backward:
                bent = slope(scores, self.call.scale, cap * unit, self.buffer)
        elif rest != 1:
            scores.mul_(rest)
        for numbers, own in self.biased(tile, scores, self.biases):
            own += by_distance(numbers, *own.shape[1:])
        if tile.hidden is not None:
            self.by_group(scores)[..., tile.hidden.keys].add_(tile.hidden.bias)
        if not self.bounded:
            return torch.softmax(scores, -1, out=scores), None, bent
        weights, sums = exponentials(scores)
        if not backward and self.dtype == self.wide:
            return weights, sums, bent
        return weights.div_(sums), None, bent

    def biased(self, tile: Tile, scores: Tensor, numbers: Mapping[int, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each part with numbers by distance: those of the tile, and its scores on this part `[heads, queries, keys]`."""
        length = tile.queries.stop - tile.queries.start
        begin = 0
        for place, keys in enumerate(tile.keys):
            end = begin + keys.stop - keys.start
            if place in numbers:
                # the number of the smallest distance, from the tile's last query to its first key (see `by_distance`)
                first = keys.start + self.queries.shape[2] - tile.queries.stop
                own = scores.view(-1, length, scores.shape[-1])[..., begin:end]
                yield numbers[place][tile.heads, first : first + own.shape[2] + length - 1], own
            begin = end

    def scores(self, name: str, queries: Tensor, keys: Parts) -> Tensor:
        """Queries times keys `[kv_heads, groups * queries, keys of all parts]`, in a buffer, at least in float32."""
        rows = tuple(queries.shape[:2])
        if len(keys) == 1 and self.wide == self.dtype:
            return torch.bmm(queries, keys[0].mT, out=self.buffer(name, (*rows, keys[0].shape[1]), self.wide))
        scores = self.buffer(name, (*rows, sum(part.shape[1] for part in keys)), self.wide)
        begin = 0
        for part in keys:
            end = begin + part.shape[1]
            # bmm has no output in another dtype, so the product is widened by a copy
            product = self.buffer("product", (*rows, end - begin), self.dtype)
            (scores if len(keys) == 1 else scores[..., begin:end]).copy_(torch.bmm(queries, part.mT, out=product))
            begin = end
        return scores

    def products(self, weights: Tensor, parts: Parts) -> Tensor:
        """The product of weights over the keys of all parts with `parts`, `[kv_heads, groups * queries, head_dim]`."""
        if len(parts) == 1:
            return torch.bmm(weights, parts[0])
        shares = torch.split(weights, [part.shape[1] for part in parts], dim=-1)
        return sum((share @ part for share, part in zip(shares[1:], parts[1:], strict=True)), start=shares[0] @ parts[0])

    def add(self, gradients: list[Tensor], tile: Tile, weights: Tensor, given: Tensor) -> None:
        """Add the transposed weights of the tile times `given`, a tensor by query, to the gradients at the tile's keys."""
        shares = torch.split(weights, [place.stop - place.start for place in tile.keys], dim=-1)
        for gradient, place, share in zip(gradients, tile.keys, shares, strict=True):
            gradient[tile.row, tile.kv_heads, place] += share.mT @ given

    def kept(self, tile: Tile, weights: Tensor) -> Tensor | None:
        """The dropout factors of the tile's weights, reproducible for the backward pass; None without dropout."""
        if self.seed is None:
            return None
        generator = torch.Generator(weights.device).manual_seed(self.seed + tile.number)
        kept = torch.empty_like(weights).bernoulli_(1 - self.call.dropout, generator=generator)
        return kept.div_(1 - self.call.dropout)

    def narrow(self, weights: Tensor) -> Tensor:
        """`weights` in the dtype of the products."""
        if weights.dtype == self.dtype:
            return weights
        return self.buffer("narrow", tuple(weights.shape), self.dtype).copy_(weights)

    def of_queries(self, whole: Tensor, tile: Tile) -> Tensor:
        """The tile's part of `[batch, heads, q, head_dim]`, as `[kv_heads, groups * queries, head_dim]`, to be multiplied."""
        part = cast(whole[tile.row, tile.heads, tile.queries], self.dtype)
        return part if self.groups == 1 else part.reshape(len(part) // self.groups, -1, part.shape[-1])

    def write(self, whole: Tensor, tile: Tile, part: Tensor) -> None:
        """Write the tile's `[kv_heads, groups * queries, head_dim]` into `whole`: the inverse of `of_queries`."""
        place = whole[tile.row, tile.heads, tile.queries]
        place.copy_(part.view(place.shape))

    def of_keys(self, parts: Parts, tile: Tile) -> Parts:
        """The keys of each part of a row that the tile attends to, `[kv_heads, keys, head_dim]`."""
        return tuple([part[tile.kv_heads, place] for part, place in zip(parts, tile.keys, strict=True)])

    def by_group(self, part: Tensor) -> Tensor:
        """A tile's `[kv_heads, groups * queries, x]` as `[kv_heads, groups, queries, x]`."""
        return part.view(len(part), self.groups, -1, part.shape[-1])

    def average(self, tile: Tile) -> Tensor:
        """The average of all values, `[kv_heads, 1, 1, head_dim]`."""
        sums = (part[tile.row, tile.kv_heads].sum(1, dtype=self.wide) for part in self.values)
        return (reduce(torch.add, sums) / self.count)[:, None, None]

    def distribute_to_values(self, of_values: list[Tensor], tile: Tile, given: Tensor, fully_masked: Tensor) -> Tensor:
        """Distribute the gradient of fully masked queries uniformly over all values; return `given` with zeros at them."""
        given = self.by_group(given)
        share = given.to(self.wide).masked_fill(~fully_masked, 0).sum((1, 2))[:, None] / self.count
        for part in of_values:
            part[tile.row, tile.kv_heads] += share
        return given.masked_fill(fully_masked, 0).flatten(1, 2)


def drop(weights: Tensor, factors: Tensor | None) -> None:
    """Multiply in place by the dropout factors, if there are any."""
    if factors is not None:
        weights.mul_(factors)
