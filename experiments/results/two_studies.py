"""Two studies side by side: how their files differ, and the losses of the variants that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.experiments.results.records import DATA, MEASURED, STUDY, Trial
from pairform.experiments.results.summary import results_of, rules_of, trials_by_variant
from pairform.experiments.statistics.comparisons import Comparison, judge
from pairform.experiments.statistics.estimates import of_groups, of_pairs
from pairform.experiments.statistics.intervals import FEWEST, interval
from pairform.experiments.statistics.rules import ComparisonSpec
from pairform.registry import difference, read_json

Losses = Mapping[int, float]
"""The losses of trials that are done, by seed."""


@dataclass(frozen=True)
class Pair:
    """A variant of both studies.

    losses:     in the first study and in the second.
    paired:     whether they are compared seed by seed.
    reason:     why not; empty if they are.
    caution:    a sentence if its size is not matched in one of the studies, with a space before it.
    comparison: the second study's loss minus the first's; None if a study has fewer than three seeds.
    """

    losses: tuple[Losses, Losses]
    paired: bool
    reason: str
    caution: str
    comparison: Comparison | None

    def sentence(self, rules: ComparisonSpec) -> str:
        """What was found, and how."""
        if self.comparison is None:
            return f"no comparison: {len(self.losses[0])} and {len(self.losses[1])} of at least {FEWEST} finished seeds each."
        how = "Paired by seed." if self.paired else f"Not paired, because {self.reason}: Welch's t-test."
        return f"{self.comparison.sentence(rules)} {how}{self.caution}"


@dataclass(frozen=True)
class TwoStudies:
    """What two studies have in common, and what not.

    differences: JSON path -> (the first study's value, the second's); None stands for absent.
    same_data:   whether the data's settings and files are the same.
    variants:    those of both, by name.
    alone:       those of the first study only, and of the second only.
    rules:       of the first study, by which the variants are compared as one family.
    """

    differences: dict[str, tuple[Any, Any]]
    same_data: bool
    variants: dict[str, Pair]
    alone: tuple[list[str], list[str]]
    rules: ComparisonSpec


def compare_studies(one: Path, other: Path) -> TwoStudies:
    """Compare two studies by their files and by their losses.

    A variant is compared seed by seed if both studies have the same data and the same finished seeds of it, and else by Welch's
    t-test, which does not assume that the seeds have anything in common.

    Returns:
        What they have in common and the comparisons of the variants of both.

    Raises:
        OutputError: a folder is not a study's.
    """
    groups = [trials_by_variant(folder) for folder in (one, other)]
    results = [results_of(folder, own) for folder, own in zip((one, other), groups, strict=True)]
    left, right = ({name: losses_of(each) for name, each in own.items()} for own in results)
    documents = [read_json(folder / STUDY) for folder in (one, other)]
    for document in documents:
        if document.get("factors"):
            document["variants"] = {}  # instead of a default that is not used
    same_data = documents[0].get("data") == documents[1].get("data") and digests_of(one) == digests_of(other)
    rules = rules_of(one)
    both = {name: (left[name], right[name]) for name in left if name in right}
    reasons = {name: why_unpaired(same_data, *losses) for name, losses in both.items()}
    estimates = {
        name: of_groups(list(second.values()), list(first.values()))
        if reasons[name]
        else of_pairs([second[seed] - first[seed] for seed in first])
        for name, (first, second) in both.items()
        if min(len(first), len(second)) >= FEWEST
    }
    found = judge(estimates, "loss", rules)
    return TwoStudies(
        difference(documents[0], documents[1]),
        same_data,
        {
            name: Pair(losses, not reasons[name], reasons[name], cautions(groups[0][name], groups[1][name]), found.get(name))
            for name, losses in both.items()
        },
        ([name for name in left if name not in right], [name for name in right if name not in left]),
        rules,
    )


def digests_of(study: Path) -> dict[str, Any]:
    """The SHA-256 of each file of a study's data, without those of its measures."""
    known = read_json(study / DATA) if (study / DATA).is_file() else {}
    return {name: digest for name, digest in known.items() if not name.startswith(MEASURED)}


def cautions(*trials: Sequence[Trial]) -> str:
    """What is to be said of variants whose size is not matched as their studies ask."""
    matches = [own[0].match for own in trials]
    return "".join(dict.fromkeys(match.caution for match in matches if match is not None))


def losses_of(results: Mapping[int, Mapping[str, Any]]) -> Losses:
    return {seed: result["loss"] for seed, result in results.items() if result.get("loss") is not None}


def why_unpaired(same_data: bool, first: Losses, second: Losses) -> str:
    """Why the trials of a variant cannot be compared seed by seed; empty if they can."""
    if not same_data:
        return "the data differ"
    return "" if first.keys() == second.keys() else "the finished seeds differ"


def mean(losses: Losses) -> dict[str, Any] | None:
    """Mean, half-width of its interval and number of seeds; None without any."""
    if not losses:
        return None
    value, half = interval(list(losses.values()))
    return {"mean": value, "half_width": half, "seeds": len(losses)}
