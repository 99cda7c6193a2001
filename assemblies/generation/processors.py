"""Functions on the scores of the next token, as transformers' `LogitsProcessor`s compute them and in their order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pairform.assemblies.generation.options import CallTokens
from pairform.assemblies.generation.phrases import Biases, NoEncoderNgram, NoNgram
from pairform.assemblies.generation.sampling import sampling_processors
from pairform.assemblies.modeling.checks.arguments import described, integer
from pairform.assemblies.modeling.generate_arguments import GenerateArguments, ScoreFunction
from pairform.assemblies.specs.generation import GenerationSpec, plain
from pairform.registry import InputError, Problem

NONE = -torch.inf
"""The score of a token that cannot be chosen."""


@dataclass(frozen=True)
class Sequences:
    """What processors need to know of the sequences of a call.

    prompt:  the number of tokens in the prompt.
    most:    the largest number of new tokens.
    first:   the number of padding tokens on the left of each row of the batch, `[batch, 1]`; None: there are none.
    source:  the encoder's input, or of a decoder-only model the prompt, `[batch, source_length]`.
    """

    prompt: int
    most: int
    first: Int[Tensor, "batch 1"] | None
    source: Int[Tensor, "batch source_length"] | None
    device: torch.device


def processors(
    settings: GenerationSpec, tokens: CallTokens, sequences: Sequences, arguments: GenerateArguments
) -> list[ScoreFunction]:
    """The processors of a call, in the order in which they run. Most calls have none.

    Raises:
        InputError: an argument is no function, or the encoder's input is needed and not given.
    """
    return [
        *penalties(settings, tokens, sequences),
        *limits(settings, tokens, sequences, arguments.get("prefix_allowed_tokens_fn")),
        *map(GivenFunction, functions("logits_processor", arguments.get("logits_processor"))),
        *sampling_processors(settings, max(2, len(tokens.ends) + 1) if settings.num_beams > 1 else 1),
        *((lambda _, scores: scores.log_softmax(-1),) if settings.renormalize_logits else ()),
    ]


def penalties(settings: GenerationSpec, tokens: CallTokens, sequences: Sequences) -> Iterator[ScoreFunction]:
    """Those that depend on which tokens occurred."""
    if settings.sequence_bias:
        yield Biases(dict(settings.sequence_bias), sequences.device)
    if settings.encoder_repetition_penalty != 1:
        yield EncoderRepetition(settings.encoder_repetition_penalty, source_of("encoder_repetition_penalty", sequences))
    if settings.repetition_penalty != 1:
        yield Repetition(settings.repetition_penalty, sequences.first)
    if settings.no_repeat_ngram_size:
        yield NoNgram(settings.no_repeat_ngram_size)
    if settings.encoder_no_repeat_ngram_size:
        source = source_of("encoder_no_repeat_ngram_size", sequences)
        yield NoEncoderNgram(settings.encoder_no_repeat_ngram_size, source)
    if settings.bad_words_ids:
        # an end token alone is never a bad word
        words = [word for word in settings.bad_words_ids if word not in {(end,) for end in tokens.ends}]
        yield Biases(dict.fromkeys(words, NONE), sequences.device)


def limits(settings: GenerationSpec, tokens: CallTokens, sequences: Sequences, allowed: Any) -> Iterator[ScoreFunction]:
    """Those that depend on the length, and sets of tokens. allowed: `prefix_allowed_tokens_fn`."""
    prompt, device = sequences.prompt, sequences.device
    least = settings.min_length if settings.min_new_tokens is None else prompt + settings.min_new_tokens
    if tokens.ends and least > prompt:
        yield Suppressed(tokens.ends, device, stop=least)
    if allowed is not None:
        if not callable(allowed):
            raise InputError(Problem("prefix_allowed_tokens_fn", described(allowed), "a function that returns token IDs"))
        yield Allowed(allowed, settings.num_beams)
    if tokens.forced_bos is not None and prompt == 1:
        yield Forced((tokens.forced_bos,), 1)
    if tokens.forced_ends:
        yield Forced(tokens.forced_ends, prompt + sequences.most - 1)
    if settings.exponential_decay_length_penalty is not None and tokens.ends:
        begin, factor = settings.exponential_decay_length_penalty
        yield RisingEnds(tokens.ends, prompt + begin, factor)
    if settings.suppress_tokens:
        yield Suppressed(settings.suppress_tokens, device)
    if settings.begin_suppress_tokens:
        begin = prompt + (prompt == 1 and tokens.forced_bos is not None)
        yield Suppressed(settings.begin_suppress_tokens, device, begin, begin + 1)


def functions(name: str, given: Any) -> list[Any]:
    """One function or several, as a list."""
    several = list(given) if isinstance(given, Sequence) else [] if given is None else [given]
    for each in several:
        if not callable(each):
            raise InputError(Problem(name, described(each), "a function, or a list of them"))
    return several


@dataclass(frozen=True)
class GivenFunction:
    """A function of the call's `logits_processor`, with a check of what it returns."""

    function: ScoreFunction

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        found: Any = self.function(tokens, scores)
        if not isinstance(found, Tensor) or found.shape != scores.shape:
            what = f"the shape {list(found.shape)}" if isinstance(found, Tensor) else described(found)
            raise InputError(Problem("logits_processor", what, f"scores of the shape {list(scores.shape)}"))
        return found


def source_of(name: str, sequences: Sequences) -> Tensor:
    if sequences.source is None:
        raise InputError(Problem(name, "encoder_outputs without input_ids", "the encoder's input_ids beside them"))
    return sequences.source


def penalised(
    scores: Float[Tensor, "rows vocabulary"], tokens: Int[Tensor, "rows length"], penalty: float
) -> Float[Tensor, "rows vocabulary"]:
    """Divide the positive scores of `tokens` by the penalty, and multiply negative ones. Tokens beyond the vocabulary, such as
    those of an encoder with a larger one, are ignored."""
    vocabulary = scores.shape[-1]
    scores = torch.nn.functional.pad(scores, (0, 1))
    tokens = tokens.clamp(max=vocabulary)
    score = scores.gather(1, tokens)
    return scores.scatter(1, tokens, torch.where(score < 0, score * penalty, score / penalty))[:, :vocabulary]


@dataclass(frozen=True)
class Repetition:
    """CTRL (arXiv 1909.05858, section 4.1). Padding on the left does not count."""

    penalty: float
    first: Int[Tensor, "batch 1"] | None

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        if self.first is not None:
            first = self.first.repeat_interleave(len(tokens) // len(self.first), 0)
            places = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens.masked_fill(places < first, scores.shape[-1])
        return penalised(scores, tokens, self.penalty)


@dataclass(frozen=True)
class EncoderRepetition:
    """The inverse of `Repetition`, for the tokens of the source."""

    penalty: float
    source: Int[Tensor, "batch source_length"]

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        source = self.source.repeat_interleave(len(scores) // len(self.source), 0)
        return penalised(scores, source, 1 / self.penalty)


class Suppressed:
    """Tokens that cannot be chosen while the number of tokens so far is at least `begin` and less than `stop`."""

    def __init__(self, tokens: Sequence[int], device: torch.device, begin: int = 0, stop: int | None = None) -> None:
        self.tokens, self.begin, self.stop = torch.tensor(tokens, device=device), begin, stop

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length < self.begin or (self.stop is not None and length >= self.stop):
            return scores
        return scores.index_fill(1, self.tokens, NONE)


@dataclass(frozen=True)
class Forced:
    """Tokens of which one is chosen when there are `length` tokens: they have a score of 0, all others of minus infinity."""

    tokens: tuple[int, ...]
    length: int

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        if tokens.shape[1] != self.length:
            return scores
        forced = torch.full_like(scores, NONE)
        forced[:, list(self.tokens)] = 0.0
        return forced


@dataclass(frozen=True)
class Allowed:
    """Only the tokens that a function of the row's number in the batch and its tokens returns."""

    function: Callable[[int, Tensor], Any]
    beams: int

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        mask = torch.full_like(scores, NONE)
        for row, sequence in enumerate(tokens):
            allowed = plain(self.function(row // self.beams, sequence))
            if not isinstance(allowed, list) or not allowed:
                found = f"no token for row {row}" if allowed == [] else described(allowed)
                raise InputError(Problem("prefix_allowed_tokens_fn", found, "one or more token IDs"))
            mask[row, [integer("prefix_allowed_tokens_fn", token, 0, scores.shape[1] - 1) for token in allowed]] = 0
        allowed_scores = scores + mask
        # where all of a row's allowed tokens are impossible, they are forced
        impossible: Bool[Tensor, "batch 1"] = allowed_scores.amax(-1).isneginf().view(-1, self.beams).all(-1, keepdim=True)
        return torch.where(impossible.repeat_interleave(self.beams, 0), mask, allowed_scores)


@dataclass(frozen=True)
class RisingEnds:
    """Raise the scores of end tokens by their size times `factor ** n - 1`, n tokens after `begin`."""

    ends: tuple[int, ...]
    begin: int
    factor: float

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        after = tokens.shape[1] - self.begin
        if after <= 0:
            return scores
        ends = scores[:, list(self.ends)]
        factor = torch.tensor(self.factor, dtype=torch.float64) ** after  # a float of Python raises where this is infinite
        rise = (ends.abs() * (float(factor) - 1)).masked_fill(~ends.isfinite(), 0.0)
        scores = scores.clone()
        scores[:, list(self.ends)] = ends + rise
        return scores
