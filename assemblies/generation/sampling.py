"""The choice of the next token from logits, `[batch, vocabulary]`."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.assemblies.modeling.checks.arguments import described, integer, number
from pairform.registry import InputError, Problem

COLDEST = 1e-6
"""The lowest temperature. Dividing logits by much less would exceed float32's range."""
SEEDS = (-(1 << 63), (1 << 64) - 1)
"""The smallest and the largest seed that torch accepts."""


@dataclass(frozen=True)
class Sampling:
    """The options of sampling.

    temperature: divides the logits.
    top_k:       keep only the k most probable tokens; 0 or None keeps all, as in transformers.
    top_p:       keep only the smallest set of most probable tokens whose total probability reaches p (nucleus sampling).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        expected = f"a finite number, {COLDEST:g} or more"
        number("temperature", self.temperature, COLDEST, math.inf, expected, "do_sample=False takes the highest-scoring token.")
        if self.top_k is not None:
            integer("top_k", self.top_k, 0)
        if self.top_p is not None:
            number("top_p", self.top_p, math.nextafter(0, 1), 1, "a probability above 0 and at most 1")

    def probabilities(self, logits: Float[Tensor, "batch vocabulary"]) -> Float[Tensor, "batch vocabulary"]:
        """The distribution to draw from, `[batch, vocabulary]` in float32."""
        logits = logits.float() / self.temperature
        if self.top_k and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ascending, order = logits.sort(dim=-1)
            # as in transformers: drop the least probable tokens, up to a total of 1 - p
            unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
            unlikely[:, -1] = False  # the most probable token always stays
            logits = logits.masked_fill(unlikely.scatter(1, order, unlikely), -torch.inf)
        return logits.softmax(-1)

    def draw(
        self, logits: Float[Tensor, "batch vocabulary"], generator: torch.Generator | None = None
    ) -> Int[Tensor, " batch"]:
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)[:, 0]


class Choose(Protocol):
    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The next token and the largest logit of each row."""


def greedy(logits: Float[Tensor, "batch vocabulary"]) -> tuple[Tensor, Tensor]:
    best, token = logits.max(-1)
    return token, best


def chooser(
    do_sample: bool,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    device: torch.device,
) -> Choose:
    """The function that chooses the next token: `greedy`, or one that draws with `Sampling`.

    Raises:
        InputError: options of sampling without `do_sample`, or out of range.
    """
    if not do_sample:
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        if unused := [name for name, value in given.items() if value is not None]:
            raise InputError(Problem(unused[0], f"{described(given[unused[0]])} without do_sample", "do_sample=True with it"))
        return greedy
    sampling = Sampling(1.0 if temperature is None else temperature, top_k, top_p)
    generator = None if seed is None else torch.Generator(device).manual_seed(integer("seed", seed, *SEEDS))

    def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.amax(-1)
        drawable = logits.masked_fill(~best.isfinite()[:, None], 0)  # drawing from NaN would abort a CUDA program
        return sampling.draw(drawable, generator), best

    return draw
