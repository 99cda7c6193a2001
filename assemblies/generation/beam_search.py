"""Beam search as in transformers: the sequences with the highest sum of token log-probabilities."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.decoding import Decoding, Finite
from pairform.assemblies.generation.forced_tokens import ForcedTokens
from pairform.assemblies.modeling.checks.arguments import described, integer, number
from pairform.registry import InputError, Problem

NEVER = -1e9
"""A score low enough that a candidate is never chosen."""
POWER = 30
"""The largest power of ten for `length ** length_penalty`, to stay in float32's range."""


@dataclass(frozen=True)
class BeamSearch:
    """The options of beam search, and the search itself.

    num_beams:            the number of unfinished sequences per row.
    length_penalty:       the score of a finished sequence is its log-probability divided by
                          `generated tokens ** length_penalty`.
    early_stopping:       True ends a row once it has `num_beams` finished sequences; False once no unfinished sequence of the
                          present length would have a higher score; "never" once none of any length could.
    num_return_sequences: the number of sequences returned per row, the best first.

    Raises:
        InputError: options of the wrong type or out of range.
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
        """Raise `InputError` for more beams than token IDs, or a length penalty whose powers exceed float32's range."""
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
        forced: ForcedTokens,
    ) -> tuple[Int[Tensor, "batch_times_returned generated"], Float[Tensor, "batch_times_returned"]]:
        """The generated tokens of the best sequences, and their scores. Prompts may be padded on the left only.

        Args:
            pixels: the images of the prompts.
            ends: end-of-sequence tokens.
            filler: fills a row after its end.
            forced: tokens that are generated whatever their scores, and the largest number of new tokens.
        """
        batch, length = prompt.shape
        max_new_tokens = forced.most
        beams = self.num_beams
        logits = decoding(prompt, pixels).repeat_interleave(beams, 0)
        vision = None if decoding.model.decoder is None else decoding.model.decoder.vision
        if decoding.cache is not None or vision is None or pixels is None:
            pixels = None
        else:
            pixels = vision.repeated(pixels, prompt, beams)
        decoding.spread(beams)
        # [batch, beams, prompt + max_new_tokens]
        running = functional.pad(prompt, (0, max_new_tokens), value=filler)[:, None].repeat(1, beams, 1)
        # all beams of a row are equal at first: only the first may be extended, or all would yield the same candidates
        scores = torch.tensor([0.0] + [NEVER] * (beams - 1), device=prompt.device).repeat(batch, 1)
        finished = Finished.none(running)
        improvable = torch.ones(batch, 1, dtype=torch.bool, device=prompt.device)
        # the number of each input's first row among all beams
        rows = torch.arange(batch, device=prompt.device)[:, None] * beams
        finite = Finite(prompt.device)
        for generated in range(1, max_new_tokens + 1):
            end = length + generated
            # the scores of all continuations, [batch, beams, vocabulary]
            following = forced(logits.float().log_softmax(-1), length, generated - 1)
            extended = following.view(batch, beams, -1) + scores[:, :, None]
            # enough candidates that `beams` unfinished ones remain even if every beam yields all end tokens
            best, index = extended.flatten(1).topk(max(2, 1 + len(ends)) * beams)
            finite.add(best[:, 0])
            # the beam that each candidate extends, and its new token, both [batch, candidates]
            origin, token = index // extended.shape[2], index % extended.shape[2]
            candidates = gather_rows(running, origin)
            candidates[:, :, end - 1] = token
            # at the limit every candidate counts as finished
            ended = torch.isin(token, ends) if generated < max_new_tokens else torch.ones_like(token, dtype=torch.bool)

            # the unfinished sequences of the next step
            scores, kept = (best + ended * NEVER).topk(beams)
            running, origin = gather_rows(candidates, kept), gather_rows(origin, kept)
            # the finished ones
            eligible = ended.clone()
            eligible[:, beams:] = False  # lower candidates only replace, as unfinished ones, those that have ended
            closed = ~improvable | (finished.full if self.early_stopping is True else False)
            candidate_scores = best / generated**self.length_penalty + closed * NEVER + ~eligible * NEVER
            finished = finished.best_with(candidates, candidate_scores, eligible, generated)

            improvable &= self.may_improve(scores, finished, generated, max_new_tokens)
            stop = ended.all() | ~improvable.any() | (finished.full.all() if self.early_stopping is True else False)
            if decoding.stops(stop):
                break
            decoding.reorder((rows + origin).flatten())
            logits = decoding(running[:, :, :end].flatten(0, 1), pixels)
        finite.check()
        return finished.results(length, self.num_return_sequences)

    def may_improve(self, scores: Tensor, finished: "Finished", generated: int, most: int) -> Bool[Tensor, "batch 1"]:
        """Whether the best unfinished sequence of a row may still score higher than its worst finished one."""
        # scores are negative: with a positive penalty they rise with the length, up to that of the longest sequence
        hypothetical = most if self.early_stopping == "never" and self.length_penalty > 0 else generated
        worst = torch.where(finished.real, finished.scores.min(1, keepdim=True).values, NEVER)
        return (scores[:, :1] / hypothetical**self.length_penalty > worst).any(1, keepdim=True)


@dataclass(frozen=True)
class Finished:
    """The best finished sequences of each row so far; `real` is False at empty places."""

    tokens: Int[Tensor, "batch beams length"]
    scores: Float[Tensor, "batch beams"]
    real: Bool[Tensor, "batch beams"]
    generated: Int[Tensor, "batch beams"]

    @staticmethod
    def none(running: Int[Tensor, "batch beams length"]) -> "Finished":
        scores = torch.full(running.shape[:2], NEVER, device=running.device)
        return Finished(running, scores, torch.zeros_like(scores, dtype=torch.bool), torch.zeros_like(scores).long())

    @property
    def full(self) -> Bool[Tensor, "batch 1"]:
        """Whether a row has as many as there are beams."""
        return self.real.all(1, keepdim=True)

    def best_with(self, tokens: Tensor, scores: Tensor, real: Tensor, generated: int) -> "Finished":
        """The best of these and of new ones with `generated` tokens each; `real` is False at ineligible ones."""
        count = self.scores.shape[1]
        best, index = torch.cat((self.scores, scores), 1).topk(count)
        lengths = torch.cat((self.generated, torch.full_like(scores, generated).long()), 1)
        return Finished(
            gather_rows(torch.cat((self.tokens, tokens), 1), index),
            best,
            gather_rows(torch.cat((self.real, real), 1), index),
            gather_rows(lengths, index),
        )

    def results(self, prompt: int, count: int) -> tuple[Tensor, Tensor]:
        """The generated tokens of the best `count` sequences of each row, as long as the longest of them, and their scores."""
        longest = int(self.generated[:, :count].max())
        return self.tokens[:, :count, prompt : prompt + longest].flatten(0, 1), self.scores[:, :count].flatten()


def gather_rows(values: Tensor, index: Int[Tensor, "batch chosen"]) -> Tensor:
    """`values[row, index[row]]` for each row."""
    index = index.view(*index.shape, *(1 for _ in values.shape[2:])).expand(*index.shape, *values.shape[2:])
    return values.gather(1, index)
