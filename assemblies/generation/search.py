"""The loop of greedy decoding and sampling, and what it shares with beam search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pairform.assemblies.generation.decoding import Decoding, Finite
from pairform.assemblies.generation.options import CallTokens
from pairform.assemblies.generation.stopping import Stopping
from pairform.assemblies.modeling.generate_arguments import ScoreFunction
from pairform.assemblies.modeling.outputs import GenerationOutput
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry import Problem

NO_TOKEN = Problem(
    "scores",
    "no token that can be chosen, or NaN or infinite scores after processing",
    "one or more finite scores in each row",
    "Settings such as bad_words_ids, suppress_tokens and no_repeat_ngram_size may exclude every token together.",
)


@dataclass(frozen=True)
class Search:
    """What a search does at each step.

    processors: functions on the scores, in order.
    stopping:   when rows end.
    most:       the largest number of new tokens.
    generator:  of sampling; None uses torch's random state.
    streamer:   called with the new token of every row, `[batch]`.
    """

    settings: GenerationSpec
    processors: Sequence[ScoreFunction]
    stopping: Stopping
    tokens: CallTokens
    most: int
    generator: torch.Generator | None
    streamer: Callable[[Tensor], object] | None

    def processed(self, tokens: Int[Tensor, "*rows length"], scores: Float[Tensor, "all_rows vocabulary"]) -> Tensor:
        if self.processors:
            tokens = tokens.flatten(0, -2)
        for processor in self.processors:
            scores = processor(tokens, scores)
        return scores

    def drawn(self, scores: Float[Tensor, "rows choices"], count: int) -> Int[Tensor, "rows count"]:
        """`count` different choices per row, with probabilities by their scores."""
        # drawing from NaN would abort a CUDA program; `Kept` reports it
        drawable = scores.masked_fill(~scores.amax(-1, keepdim=True).isfinite(), 0)
        return torch.multinomial(drawable.softmax(-1), count, generator=self.generator)


@dataclass
class Kept:
    """The scores and logits of all steps if they are returned, and the check of both."""

    search: Search
    device: torch.device
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.search.settings
        self.keeps_scores = settings.return_dict_in_generate and settings.output_scores
        self.keeps_logits = settings.return_dict_in_generate and settings.output_logits
        self.finite, self.possible = Finite(self.device), Finite(self.device, NO_TOKEN)

    def add(self, logits: Float[Tensor, "rows vocabulary"], scores: Float[Tensor, "rows vocabulary"]) -> None:
        """Add copies of those of one step: a CUDA graph writes its logits into the same tensor at every step."""
        if self.keeps_scores:
            self.scores.append(scores.to(torch.float32, copy=True))
        if self.keeps_logits:
            self.logits.append(logits.to(torch.float32, copy=True))

    def check(self, logits: Float[Tensor, "rows vocabulary"], best: Float[Tensor, "..."]) -> None:
        """Check one step. best: the largest processed scores; without processors they show whether the logits were finite."""
        if self.search.processors:
            self.finite.add(logits.amax(-1))
            self.possible.add(best)
        else:
            self.finite.add(best)

    def output(self, sequences: Tensor) -> GenerationOutput:
        """The result.

        Raises:
            InputError: some logits were NaN or infinite, or no token could be chosen.
        """
        self.finite.check()
        self.possible.check()
        scores, logits = tuple(self.scores), tuple(self.logits)
        return GenerationOutput(sequences, scores if self.keeps_scores else None, logits if self.keeps_logits else None)


def sample(decoding: Decoding, prompt: Int[Tensor, "batch prompt"], images: Tensor | None, search: Search) -> GenerationOutput:
    """Compute logits and choose tokens until every row has ended. Rows that have ended are filled.

    Returns the generated tokens, with `num_return_sequences` rows per row of the prompt.
    """
    length, filler, settings = prompt.shape[1], search.tokens.filler, search.settings
    plain = not search.processors and not settings.do_sample
    logits, images = decoding(prompt, images), None if decoding.cache is not None else images
    if settings.num_return_sequences > 1:
        logits = logits.repeat_interleave(settings.num_return_sequences, 0)
        prompt, images = decoding.spread(settings.num_return_sequences, prompt, images)
    running = functional.pad(prompt, (0, search.most), value=filler)
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    kept = Kept(search, prompt.device)
    for end in range(length, length + search.most):
        if end > length:
            logits = decoding(running[:, :end], images)
        scores = logits if plain else search.processed(running[:, :end], logits.float())
        best, token = scores.max(-1)
        kept.check(logits, best)
        if settings.do_sample:
            token = search.drawn(scores, 1)[:, 0]
        kept.add(logits, scores)
        if search.tokens.ends:
            token = token.masked_fill(finished, filler)
        running[:, end] = token
        if search.streamer is not None:
            search.streamer(token)
        if search.stopping.any:
            finished |= search.stopping(running[:, : end + 1], tuple(kept.scores) if kept.keeps_scores else None)
            if decoding.stops(finished):
                break
    made = kept.output(running[:, length : end + 1])
    decoding.finish(end)
    if decoding.cache is not None:
        decoding.cache.tokens = running[:, : decoding.cache.length].clone()
    return made
