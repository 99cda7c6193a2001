"""The scaling laws of a ladder, on the command line."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pairform.cli.display.printing import console
from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.experiments.results.ladder import VariantLaw


def ladder_rows(found: "list[VariantLaw]") -> list[dict[str, Any]]:
    """The laws as documents, with what they say as sentences."""
    from pairform.experiments.results.law_sentences import sentences

    return [asdict(each) | {"findings": sentences(each)} for each in found]


def print_ladder(found: "list[VariantLaw]") -> None:
    """A sentence for each law, multiplier and iso-FLOP curve."""
    from pairform.experiments.results.law_sentences import sentences

    if found:
        console.print()
    for each in found:
        for sentence in sentences(each):
            console.print(printable(f"{each.variant}: {sentence}"))
