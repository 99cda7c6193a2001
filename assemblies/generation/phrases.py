"""Processors of scores that depend on sequences of several tokens."""

from collections.abc import Mapping
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Biases:
    """Adds a term to the score of the last token of each sequence, in rows that end with the tokens before it."""

    def __init__(self, biases: Mapping[tuple[int, ...], float], device: torch.device) -> None:
        # by length: prefixes `[sequences, length - 1]`, last tokens and terms `[sequences]`
        self.groups: list[tuple[Tensor, Tensor, Tensor]] = []
        for _, group in groupby(sorted(biases, key=len), key=len):
            words = list(group)
            prefixes, last = (torch.tensor([word[part] for word in words], device=device) for part in (slice(-1), -1))
            terms = torch.tensor([biases[word] for word in words], dtype=torch.float, device=device)
            self.groups.append((prefixes.view(len(words), -1).long(), last, terms))

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        bias = torch.zeros_like(scores)
        for prefixes, last, terms in self.groups:
            length = prefixes.shape[1]
            if length <= tokens.shape[1]:
                # [rows, sequences]
                matches = (tokens[:, None, tokens.shape[1] - length :] == prefixes).all(-1)
                bias.index_add_(1, last, torch.where(matches, terms, 0.0).to(bias.dtype))
        return scores + bias


class NoNgram:
    """Excludes the tokens that would complete an n-gram of the row a second time."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        if tokens.shape[1] < self.size:
            return scores
        return without_completions(scores, tokens, tokens.unfold(1, self.size, 1))


class NoEncoderNgram:
    """Excludes the tokens that would complete an n-gram of the row's source, `[batch, source_length]`."""

    def __init__(self, size: int, source: Int[Tensor, "batch source_length"]) -> None:
        self.size = size
        self.windows = source.unfold(1, size, 1) if source.shape[1] >= size else None

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        if self.windows is None or tokens.shape[1] < self.size - 1:
            return scores
        return without_completions(scores, tokens, self.windows.repeat_interleave(len(tokens) // len(self.windows), 0))


def without_completions(
    scores: Float[Tensor, "rows vocabulary"], tokens: Int[Tensor, "rows length"], ngrams: Int[Tensor, "rows ngrams size"]
) -> Float[Tensor, "rows vocabulary"]:
    """The scores, minus infinity for the last token of each n-gram whose other tokens are the last ones of the row."""
    vocabulary, before = scores.shape[-1], ngrams.shape[2] - 1
    matches = (ngrams[..., :-1] == tokens[:, None, tokens.shape[1] - before :]).all(-1)
    excluded = torch.zeros(len(scores), vocabulary + 1, dtype=torch.bool, device=scores.device)
    # n-grams that do not match, and tokens beyond the vocabulary, go to a column of their own
    excluded.scatter_(1, torch.where(matches, ngrams[..., -1].clamp(max=vocabulary), vocabulary), True)
    return scores.masked_fill(excluded[:, :vocabulary], -torch.inf)
