"""Two studies side by side, on the command line."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairform.cli.display.printing import Sheet, console
from pairform.registry import shorten
from pairform.registry.errors import cut_middle, printable

if TYPE_CHECKING:
    from pairform.experiments.results.two_studies import Losses, TwoStudies

LONGEST_NAME = 80
"""Characters of a variant's name, or of a path."""


def comparison_document(one: Path, other: Path, found: "TwoStudies") -> dict[str, Any]:
    """What was found, as a document."""
    from pairform.experiments.results.two_studies import mean

    variants = [
        {
            "variant": name,
            "loss": {"a": mean(pair.losses[0]), "b": mean(pair.losses[1])},
            "paired": pair.paired,
            "difference": None if pair.comparison is None else asdict(pair.comparison),
            "finding": pair.sentence(found.rules),
        }
        for name, pair in found.variants.items()
    ]
    return {
        "a": str(one),
        "b": str(other),
        "differences": [{"path": path, "a": old, "b": new} for path, (old, new) in found.differences.items()],
        "same_data": found.same_data,
        "variants": variants,
        "only_in_a": found.alone[0],
        "only_in_b": found.alone[1],
    }


def print_comparison(one: Path, other: Path, found: "TwoStudies") -> None:
    """How the studies' files differ, the losses of both, and a sentence for each variant."""
    console.print(printable(f"A: {one}"))
    console.print(printable(f"B: {other}"))
    console.print()
    if found.differences:
        table = Sheet("path", "A", "B")
        for path, values in found.differences.items():
            table.add_row(cut_middle(path, LONGEST_NAME), *("absent" if value is None else shorten(value) for value in values))
        console.print(table)
    else:
        console.print("The studies' files are the same.")
    if not found.same_data:
        console.print("The data differ: losses of different data are not comparable in general.")
    console.print()
    table = Sheet("variant", "loss of A", "seeds", "loss of B", "seeds", "B - A")
    for name, pair in found.variants.items():
        apart = pair.comparison
        change = "" if apart is None or apart.half_width is None else f"{apart.mean:+.4f} ±{apart.half_width:.4f}"
        table.add_row(
            cut_middle(name, LONGEST_NAME),
            *(cell for losses in pair.losses for cell in (loss(losses), str(len(losses)))),
            change,
        )
    if found.variants:
        console.print(table)
    else:
        console.print("No variant is in both studies.")
    for name, pair in found.variants.items():
        print(printable(f"{cut_middle(name, LONGEST_NAME)}: {pair.sentence(found.rules)}"))
    for words, names in zip("AB", found.alone, strict=True):
        if names:
            print(printable(f"Only in {words}: {', '.join(cut_middle(name, LONGEST_NAME) for name in names)}."))


def loss(losses: "Losses") -> str:
    """As in `1.2345 ±0.0123`."""
    from pairform.experiments.results.two_studies import mean

    if (found := mean(losses)) is None:
        return ""
    half = "" if found["half_width"] is None else f" ±{found['half_width']:.4f}"
    return f"{found['mean']:.4f}{half}"
