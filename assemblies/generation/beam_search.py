"""Beam search as in transformers: the sequences with the highest sum of token log-probabilities."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.decoding import Decoding
from pairform.assemblies.generation.options import check_length_penalty
from pairform.assemblies.generation.search import Kept, Search
from pairform.assemblies.modeling.outputs import GenerationOutput
from pairform.assemblies.specs.generation import GenerationSpec

NEVER = -1e9
"""A score low enough that a candidate is never chosen."""


def beam_search(
    decoding: Decoding, prompt: Int[Tensor, "batch prompt"], images: Tensor | None, search: Search
) -> GenerationOutput:
    """The generated tokens of the best sequences of each row, the best first. Prompts may be padded on the left only."""
    settings, most = search.settings, search.most
    check_length_penalty(settings, most)
    batch, length = prompt.shape
    beams = settings.num_beams
    logits, images = decoding(prompt, images), None if decoding.cache is not None else images
    logits = logits.repeat_interleave(beams, 0)
    prompt, images = decoding.spread(beams, prompt, images)
    # the tokens of each beam, and the row of the scores that each was chosen from, [batch, beams, 2, prompt + most]
    filled = functional.pad(prompt, (0, most), value=search.tokens.filler)
    running = torch.stack((filled, torch.full_like(filled, -1)), 1).view(batch, beams, 2, -1)
    # all beams of a row are equal at first: only the first may be extended, or all would yield the same candidates
    scores = torch.tensor([0.0] + [NEVER] * (beams - 1), device=prompt.device).repeat(batch, 1)
    finished = Finished.none(running)
    improvable = torch.ones(batch, 1, dtype=torch.bool, device=prompt.device)
    # the number of each input's first row among all beams
    rows = torch.arange(batch, device=prompt.device)[:, None] * beams
    # enough candidates that `beams` unfinished ones remain even if every beam yields all end tokens
    count = max(2, 1 + len(search.tokens.ends)) * beams
    kept = Kept(search, prompt.device)
    for generated in range(1, most + 1):
        end = length + generated
        # the scores of all continuations, [batch, beams, vocabulary]
        following = search.processed(running[:, :, 0, : end - 1], logits.float().log_softmax(-1))
        kept.add(logits, following)
        extended = (following.view(batch, beams, -1) + scores[:, :, None]).flatten(1)
        best, index = extended.topk(count)
        kept.check(logits, best[:, 0])
        if settings.do_sample:
            index = search.drawn(extended, count)
            best = extended.gather(1, index)
        # the beam that each candidate extends, and its new token, both [batch, candidates]
        origin, token = index // following.shape[-1], index % following.shape[-1]
        candidates = gather_rows(running, origin)
        candidates[:, :, 0, end - 1], candidates[:, :, 1, end - 1] = token, origin + rows
        # at the limit every candidate counts as finished
        ended = torch.ones_like(token, dtype=torch.bool)
        if generated < most:
            returned = tuple(kept.scores) if kept.keeps_scores else None
            ended = search.stopping(candidates[:, :, 0, :end], returned)

        # the unfinished sequences of the next step
        scores, next_ones = (best + ended * NEVER).topk(beams)
        running, origin = gather_rows(candidates, next_ones), gather_rows(origin, next_ones)
        # the finished ones
        eligible = ended.clone()
        eligible[:, beams:] = False  # lower candidates only replace, as unfinished ones, those that have ended
        closed = ~improvable | (finished.full if settings.early_stopping is True else False)
        candidate_scores = best / generated**settings.length_penalty + closed * NEVER + ~eligible * NEVER
        finished = finished.best_with(candidates, candidate_scores, eligible)

        improvable &= may_improve(settings, scores, finished, generated, most)
        stop = ended.all() | ~improvable.any() | (finished.full.all() if settings.early_stopping is True else False)
        if decoding.stops(stop):
            break
        decoding.reorder((rows + origin).flatten())
        logits = decoding(running[:, :, 0, :end].flatten(0, 1), images)
    return finished.results(kept, length)


def may_improve(
    settings: GenerationSpec, scores: Tensor, finished: "Finished", generated: int, most: int
) -> Bool[Tensor, "batch 1"]:
    """Whether the best unfinished sequence of a row may still score higher than its worst finished one."""
    # scores are negative: with a positive penalty they rise with the length, up to that of the longest sequence
    hypothetical = most if settings.early_stopping == "never" and settings.length_penalty > 0 else generated
    worst = torch.where(finished.real, finished.scores.min(1, keepdim=True).values, NEVER)
    return (scores[:, :1] / hypothetical**settings.length_penalty > worst).any(1, keepdim=True)


@dataclass(frozen=True)
class Finished:
    """The best finished sequences of each row so far; `real` is False at empty places.

    sequences: tokens, and the row of the scores that each was chosen from, -1 in the prompt and after the end.
    """

    sequences: Int[Tensor, "batch beams 2 length"]
    scores: Float[Tensor, "batch beams"]
    real: Bool[Tensor, "batch beams"]

    @staticmethod
    def none(running: Int[Tensor, "batch beams 2 length"]) -> "Finished":
        scores = torch.full(running.shape[:2], NEVER, device=running.device)
        return Finished(running, scores, torch.zeros_like(scores, dtype=torch.bool))

    @property
    def full(self) -> Bool[Tensor, "batch 1"]:
        """Whether a row has as many as there are beams."""
        return self.real.all(1, keepdim=True)

    def best_with(self, sequences: Tensor, scores: Tensor, real: Tensor) -> "Finished":
        """The best of these and of new ones; `real` is False at ineligible ones."""
        best, index = torch.cat((self.scores, scores), 1).topk(self.scores.shape[1])
        return Finished(
            gather_rows(torch.cat((self.sequences, sequences), 1), index),
            best,
            gather_rows(torch.cat((self.real, real), 1), index),
        )

    def results(self, kept: Kept, prompt: int) -> GenerationOutput:
        """The generated tokens of the best sequences of each row, as long as the longest of them."""
        count = kept.search.settings.num_return_sequences
        tokens, chosen_from = self.sequences[:, :count, :, prompt:].flatten(0, 1).unbind(1)
        longest = int((chosen_from >= 0).sum(1).max())
        made = kept.output(tokens[:, :longest])
        made.beam_indices = chosen_from[:, :longest]
        made.sequences_scores = self.scores[:, :count].flatten() if kept.keeps_scores else None
        return made


def gather_rows(values: Tensor, index: Int[Tensor, "batch chosen"]) -> Tensor:
    """`values[row, index[row]]` for each row."""
    index = index.view(*index.shape, *(1 for _ in values.shape[2:])).expand(*index.shape, *values.shape[2:])
    return values.gather(1, index)
