"""Remarks on a study's variants in the terminal, the same before and after it runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pairform.registry.errors import cut_middle, printable

if TYPE_CHECKING:
    from pairform.experiments.results.matched_size import Match

LONGEST_NAME, MOST_NAMES = 80, 3
"""Characters of a variant's name, and names in a line."""


def print_remarks(found: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> None:
    """Print the remarks on variants, given as name, other names of the same variant, and remarks."""
    said: list[tuple[str, str]] = []
    for name, also, remarks in found:
        said += [(other, f"the same model, training and weights as {cut_middle(name, LONGEST_NAME)}.") for other in also]
        said += [(name, remark) for remark in remarks]
    print_sentences(said)


def print_sentences(found: Iterable[tuple[str, str]]) -> None:
    """Print each sentence once, after the variants of which it is said."""
    names: dict[str, dict[str, None]] = {}
    for name, sentence in found:
        names.setdefault(sentence, {})[cut_middle(name, LONGEST_NAME)] = None
    for sentence, own in names.items():
        shown, more = list(own)[:MOST_NAMES], len(own) - MOST_NAMES
        rest = f" and {more} other{'s' * (more > 1)}" if more > 0 else ""
        print(printable(f"{', '.join(shown)}{rest}: {sentence}"))


def matched(match: Mapping[str, Any]) -> str:
    """As in `parameters +0.31% (tolerance 1%)`."""
    allowed = "" if match["tolerance"] is None else f" (tolerance {100 * match['tolerance']:g}%)"
    return f"{match['by']} {match['difference']:+.2%}{allowed}{'' if match['matched'] else ' not matched'}"


def resized(match: "Match") -> str:
    """What was changed to match a variant, as in `decoder.layer.branches.feed_forward.hidden 64 -> 104.`."""
    changes = ", ".join(f"{path} {old} -> {new}" for path, (old, new) in match.changed.items())
    return f"{changes or 'no size was changed'}.{match.caution}"
