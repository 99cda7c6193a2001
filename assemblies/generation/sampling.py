"""Processors that decide from which tokens one is drawn, as transformers' warpers and in their order."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pairform.assemblies.modeling.generate_arguments import ScoreFunction
from pairform.assemblies.specs.generation import GenerationSpec

MOST_BY_ENTROPY = 100
"""The most tokens that `top_h` keeps."""
Removed = Callable[[Tensor], Tensor]
"""From scores to True at tokens that are not drawn, both `[rows, vocabulary]`."""


def sampling_processors(settings: GenerationSpec, keep: int) -> Iterator[ScoreFunction]:
    """The processors of sampling. keep: the smallest number of tokens that stay."""
    if not settings.do_sample:
        return
    if settings.temperature != 1:
        yield lambda _, scores: scores / settings.temperature
    if settings.top_h is not None:
        yield without(lambda scores: high_entropy(scores, settings.top_h or 1))
    if settings.top_k:
        yield without(lambda scores: scores < largest(scores, max(settings.top_k, keep)))
    if settings.top_p < 1:
        yield without(lambda scores: outside_nucleus(scores, settings.top_p, keep))
    if settings.min_p is not None:
        yield without(lambda scores: improbable(scores, settings.min_p or 0, keep))
    if settings.typical_p < 1:
        yield without(lambda scores: untypical(scores, settings.typical_p, keep))
    if settings.epsilon_cutoff > 0:
        yield without(lambda scores: below_epsilon(scores, settings.epsilon_cutoff, keep))
    if settings.eta_cutoff > 0:
        yield without(lambda scores: below_eta(scores, settings.eta_cutoff, keep))


def without(removed: Removed) -> ScoreFunction:
    return lambda _, scores: scores.masked_fill(removed(scores), -torch.inf)


def largest(scores: Float[Tensor, "rows vocabulary"], count: int) -> Float[Tensor, "rows 1"]:
    """The smallest of the `count` largest scores."""
    return scores.topk(min(count, scores.shape[-1])).values[:, -1:]


def log_chances(scores: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows vocabulary"]:
    return scores - scores.logsumexp(-1, keepdim=True)


def entropy(scores: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows 1"]:
    logs = log_chances(scores)
    return -(logs.clamp(min=torch.finfo(logs.dtype).min) * logs.softmax(-1)).sum(-1, keepdim=True)


def high_entropy(scores: Tensor, share: float) -> Bool[Tensor, "rows vocabulary"]:
    """All but the most probable tokens that make up `share` of the entropy of the `MOST_BY_ENTROPY` most probable ones."""
    top, order = scores.topk(min(MOST_BY_ENTROPY, scores.shape[-1]))
    chances = log_chances(top).softmax(-1)
    kept = (-chances * chances.log()).cumsum(-1) <= entropy(top) * share
    kept[:, 0] = True
    return ~torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, kept)


def outside_nucleus(scores: Tensor, probability: float, keep: int) -> Bool[Tensor, "rows vocabulary"]:
    """The least probable tokens up to a total of `1 - probability` (arXiv 1904.09751, section 3.1)."""
    ascending, order = scores.sort(dim=-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - probability
    removed[:, -keep:] = False
    return removed.scatter(1, order, removed)


def improbable(scores: Tensor, share: float, keep: int) -> Bool[Tensor, "rows vocabulary"]:
    """Tokens of less than `share` of the largest probability (arXiv 2407.01082)."""
    chances = scores.softmax(-1)
    removed = chances < share * chances.amax(-1, keepdim=True)
    return removed.scatter(1, chances.topk(min(keep, chances.shape[-1])).indices, False)


def untypical(scores: Tensor, mass: float, keep: int) -> Bool[Tensor, "rows vocabulary"]:
    """Tokens whose information differs most from the entropy, up to a total of `1 - mass` (arXiv 2202.00666, section 3)."""
    logs = scores.log_softmax(-1)
    information = -(logs * logs.exp()).nansum(-1, keepdim=True)
    ascending, order = (-logs - information).abs().sort()
    total = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (total < mass).sum(1).clamp(max=ascending.shape[-1] - 1)
    removed = ascending > ascending.gather(1, last[:, None])
    removed[:, :keep] = False
    return removed.scatter(1, order, removed)


def below_epsilon(scores: Tensor, epsilon: float, keep: int) -> Bool[Tensor, "rows vocabulary"]:
    """Tokens of a probability below epsilon (arXiv 2210.15191)."""
    return (scores.softmax(-1) < epsilon) & (scores < largest(scores, keep))


def below_eta(scores: Tensor, epsilon: float, keep: int) -> Bool[Tensor, "rows vocabulary"]:
    """Tokens of a probability below epsilon and below `sqrt(epsilon) * exp(-entropy)` (arXiv 2210.15191, section 4)."""
    limit = torch.tensor(epsilon, device=scores.device)
    eta = torch.min(limit, limit.sqrt() * (-entropy(scores)).exp())
    return (scores.softmax(-1) < eta) & (scores < largest(scores, keep))
