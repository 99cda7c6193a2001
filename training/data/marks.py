"""The token ids that an objective adds to texts: sentinels and the mask token, found in the model or in the tokenizer."""

import re

import numpy as np

from pairform.registry import Problem, SpecError, shorten
from pairform.training.data.batches import Ids
from pairform.training.data.objectives import Marks, Masked, Objective, SpanCorruption
from pairform.training.data.tokens import Tokens

SPARE = "spare"
NUMBER = "{}"
"""Stands for the number in a pattern of tokens such as `<unused{}>`."""


def marks_of(objective: Objective, ids: Ids, tokens: Tokens) -> Marks:
    """The ids that the objective adds to texts of these tokens.

    Raises:
        SpecError: too few sentinels, with their numbers and with choices that fit; or no mask token.
    """
    if isinstance(objective, SpanCorruption):
        return Marks(ids.end, sentinels=np.array(sentinels_for(objective, ids, tokens), np.int32))
    if isinstance(objective, Masked):
        words = tokens.bytes_ or tuple(sorted({*ids.free} - {*tokens.spare}))
        return Marks(ids.end, mask=mask_token(objective.mask, ids, tokens), words=np.array(words, np.int32))
    return Marks(ids.end)


def sentinels_for(objective: SpanCorruption, ids: Ids, tokens: Tokens) -> tuple[int, ...]:
    """As many sentinels as there are; at least those that the objective needs."""
    pattern, needed = objective.sentinels, objective.needed
    if pattern == SPARE:
        found, where, kind = tokens.spare, "vocabulary", "ids that no text has"
    else:
        found, where, kind = matching(pattern, ids, tokens), PATTERN, f"tokens of the pattern {shorten(pattern)}"
    if len(found) < needed:
        expected = f"at least {needed}, as sentinels"
        raise SpecError(Problem(where, f"{len(found)} {kind}", expected, objective.fitting(len(found))))
    return found


PATTERN = "data.objective.sentinels"


def matching(pattern: str, ids: Ids, tokens: Tokens) -> tuple[int, ...]:
    """The ids of the tokenizer's tokens that have a number at the place of `{}`, in the order of the numbers."""
    before, number, after = pattern.partition(NUMBER)
    if not number:
        raise SpecError(Problem(PATTERN, shorten(pattern), f"{SPARE!r}, or a pattern with {NUMBER} for a number"))
    if tokens.tokenizer is None:
        raise SpecError(Problem(PATTERN, f"{shorten(pattern)} with bytes as tokens", f"{SPARE!r}, or a tokenizer"))
    named = re.compile(f"{re.escape(before)}([0-9]{{1,9}}){re.escape(after)}")
    free = set(ids.free)
    matches = ((named.fullmatch(token), place) for token, place in tokens.tokenizer.get_vocab().items())
    return tuple(place for _, place in sorted((int(match[1]), place) for match, place in matches if match and place in free))


def mask_token(wanted: int | str | None, ids: Ids, tokens: Tokens) -> int:
    """The id of the mask token; `SpecError` if there is none, or text has it."""
    where = "data.objective.mask"
    if wanted is None:
        if not tokens.spare:
            remedy = "Name one of the tokenizer's tokens."
            raise SpecError(Problem(where, "no id that no text has", "a token that stands for masked ones", remedy))
        return tokens.spare[0]
    found: int | None = wanted if isinstance(wanted, int) else None
    if isinstance(wanted, str) and tokens.tokenizer is not None:
        found = tokens.tokenizer.token_to_id(wanted)
    if found is None or (found not in ids.free) or found in tokens.bytes_:
        expected = "an id or a token of the tokenizer, that is neither a special token nor a byte and within the vocabulary"
        raise SpecError(Problem(where, shorten(wanted), expected))
    return found
