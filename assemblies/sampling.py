"""Choosing the next token from logits `[batch, vocabulary]`."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class Sampling:
    """temperature divides the logits; top_k keeps the k likeliest; top_p the fewest that together reach probability p."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(Problem("temperature", str(self.temperature), "a number above 0", "Greedy is do_sample=False."))
        if self.top_k is not None and self.top_k < 1:
            raise InputError(Problem("top_k", str(self.top_k), "1 or more"))
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(Problem("top_p", str(self.top_p), "a probability above 0 and at most 1"))

    def probabilities(self, logits: Float[Tensor, "batch vocabulary"]) -> Float[Tensor, "batch vocabulary"]:
        """The distribution to draw from, in float32."""
        logits = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ascending, order = logits.sort(dim=-1)
            unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
            unlikely[:, -1] = False
            logits = logits.masked_fill(unlikely.scatter(1, order, unlikely), -torch.inf)
        return logits.softmax(-1)

    def draw(
        self, logits: Float[Tensor, "batch vocabulary"], generator: torch.Generator | None = None
    ) -> Int[Tensor, " batch"]:
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)[:, 0]


class Choose(Protocol):
    def __call__(self, logits: Tensor) -> Tensor: ...


def chooser(
    do_sample: bool,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    device: torch.device,
) -> Choose:
    """How the next token is taken from the logits."""
    if not do_sample:
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        if unused := [name for name, value in given.items() if value is not None]:
            raise InputError(Problem(unused[0], f"{given[unused[0]]} without do_sample", "do_sample=True beside it"))
        return lambda logits: logits.argmax(-1)
    sampling = Sampling(1.0 if temperature is None else temperature, top_k, top_p)
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    return lambda logits: sampling.draw(logits, generator)
