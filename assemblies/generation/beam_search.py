"""Beam search, as transformers does it: the likeliest texts by the sum of their tokens' log-probabilities."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.decoding import Decoding, Finite
from pairform.assemblies.modeling.checks.arguments import described, integer, number
from pairform.registry import InputError, Problem

NEVER = -1e9
"""The score of what shall not be chosen."""
POWER = 30
"""The power of ten up to which a text's length may be raised."""


@dataclass(frozen=True)
class BeamSearch:
    """num_beams: how many unfinished texts of each row are followed.

    length_penalty:       a finished text's score is its log-probability over the `length_penalty` power of its new tokens.
    early_stopping:       True ends a row when it has `num_beams` finished texts; False when no unfinished one of the present
                          length would score better; "never" when none of any length could.
    num_return_sequences: how many texts of each row are given, the best first.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        integer("num_beams", self.num_beams, 1)
        integer("num_return_sequences", self.num_return_sequences, 1, self.num_beams)
        number("length_penalty", self.length_penalty, -math.inf, math.inf, "a finite number")
        if not (isinstance(self.early_stopping, bool) or self.early_stopping == "never"):
            raise InputError(Problem("early_stopping", described(self.early_stopping), "True, False or 'never'"))

    def check_size(self, vocabulary: int, max_new_tokens: int) -> None:
        """Refuse more beams than there are tokens to begin with, and a length penalty whose powers leave float32's range."""
        integer("num_beams", self.num_beams, 1, vocabulary)
        most = POWER / max(1, math.log10(max_new_tokens))
        expected = f"a number from {-most:.3g} to {most:.3g}, for {max_new_tokens} tokens"
        number("length_penalty", self.length_penalty, -most, most, expected)

    @torch.no_grad()
    def __call__(
        self,
        decoding: Decoding,
        prompt: Int[Tensor, "batch prompt"],
        pixels: Tensor | None,
        ends: Int[Tensor, " ends"],
        filler: int,
        max_new_tokens: int,
    ) -> tuple[Int[Tensor, "batch_times_returned written"], Float[Tensor, "batch_times_returned"]]:
        """The new tokens of the best texts and their scores. Prompts are padded on the left, if at all."""
        batch, length = prompt.shape
        beams = self.num_beams
        logits = decoding(prompt, pixels).repeat_interleave(beams, 0)
        vision = None if decoding.model.decoder is None else decoding.model.decoder.vision
        if decoding.cache is not None or vision is None or pixels is None:
            pixels = None
        else:
            pixels = vision.repeated(pixels, prompt, beams)
        decoding.spread(beams)
        running = functional.pad(prompt, (0, max_new_tokens), value=filler)[:, None].repeat(1, beams, 1)
        scores = torch.tensor([0.0] + [NEVER] * (beams - 1), device=prompt.device).repeat(batch, 1)
        found = Finished.none(running)
        improvable = torch.ones(batch, 1, dtype=torch.bool, device=prompt.device)
        rows = torch.arange(batch, device=prompt.device)[:, None] * beams
        finite = Finite(prompt.device)
        for written in range(1, max_new_tokens + 1):
            end = length + written
            whole = logits.float().log_softmax(-1).view(batch, beams, -1) + scores[:, :, None]
            best, index = whole.flatten(1).topk(max(2, 1 + len(ends)) * beams)
            finite.see(best[:, 0])
            origin, token = index // whole.shape[2], index % whole.shape[2]
            candidates = taken(running, origin)
            candidates[:, :, end - 1] = token
            ended = torch.isin(token, ends) if written < max_new_tokens else torch.ones_like(token, dtype=torch.bool)

            scores, kept = (best + ended * NEVER).topk(beams)
            running, origin = taken(candidates, kept), taken(origin, kept)
            late = ended.clone()
            late[:, beams:] = False  # candidates behind the best only stand in for those that ended
            closed = ~improvable | (found.full if self.early_stopping is True else False)
            offered = best / written**self.length_penalty + closed * NEVER + ~late * NEVER
            found = found.best_with(candidates, offered, late, written)

            improvable &= self.may_improve(scores, found, written, max_new_tokens)
            stop = ended.all() | ~improvable.any() | (found.full.all() if self.early_stopping is True else False)
            if stop:
                break
            decoding.reorder((rows + origin).flatten())
            logits = decoding(running[:, :, :end].flatten(0, 1), pixels)
        finite.check()
        return found.answer(length, self.num_return_sequences)

    def may_improve(self, scores: Tensor, found: "Finished", written: int, most: int) -> Bool[Tensor, "batch 1"]:
        """Whether the best unfinished text of a row may still score better than its worst finished one."""
        reached = most if self.early_stopping == "never" and self.length_penalty > 0 else written
        worst = torch.where(found.real, found.scores.min(1, keepdim=True).values, NEVER)
        return (scores[:, :1] / reached**self.length_penalty > worst).any(1, keepdim=True)


@dataclass(frozen=True)
class Finished:
    """The best finished texts of each row so far; `real` is False where there is none yet."""

    tokens: Int[Tensor, "batch beams length"]
    scores: Float[Tensor, "batch beams"]
    real: Bool[Tensor, "batch beams"]
    written: Int[Tensor, "batch beams"]

    @staticmethod
    def none(running: Int[Tensor, "batch beams length"]) -> "Finished":
        scores = torch.full(running.shape[:2], NEVER, device=running.device)
        return Finished(running, scores, torch.zeros_like(scores, dtype=torch.bool), torch.zeros_like(scores).long())

    @property
    def full(self) -> Bool[Tensor, "batch 1"]:
        """Whether a row has as many as it can hold."""
        return self.real.all(1, keepdim=True)

    def best_with(self, tokens: Tensor, scores: Tensor, real: Tensor, written: int) -> "Finished":
        """The best of these and others."""
        count = self.scores.shape[1]
        best, index = torch.cat((self.scores, scores), 1).topk(count)
        lengths = torch.cat((self.written, torch.full_like(scores, written).long()), 1)
        return Finished(
            taken(torch.cat((self.tokens, tokens), 1), index),
            best,
            taken(torch.cat((self.real, real), 1), index),
            taken(lengths, index),
        )

    def answer(self, prompt: int, count: int) -> tuple[Tensor, Tensor]:
        """The new tokens of the best `count` texts of each row, as long as the longest of them, and their scores."""
        longest = int(self.written[:, :count].max())
        return self.tokens[:, :count, prompt : prompt + longest].flatten(0, 1), self.scores[:, :count].flatten()


def taken(values: Tensor, index: Int[Tensor, "batch chosen"]) -> Tensor:
    """`values[row, index[row]]` of every row."""
    index = index.view(*index.shape, *(1 for _ in values.shape[2:])).expand(*index.shape, *values.shape[2:])
    return values.gather(1, index)
