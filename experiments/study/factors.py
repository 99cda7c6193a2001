"""Factors of a study: named patches as levels, and which of their combinations are run."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.statistics.factorial import MOST_FACTORS, generators, runs
from pairform.experiments.study.values import comparable
from pairform.registry import DocumentOf, Patch, Problem, Spec, join_path, shorten
from pairform.registry.documents import PARTS

Levels = Mapping[str, str]
"""A level by factor."""


def in_words(name: Any, check: ValidatorFunctionWrapHandler) -> str:
    """The error of a name without a regular expression."""
    try:
        return str(check(name))
    except ValidationError:
        raise ValueError("a name of 1 to 64 characters without spaces and `=`, as in cross_attention") from None


Name = Annotated[str, Field(pattern=r"^[^\s=]{1,64}$"), WrapValidator(in_words)]
"""Without spaces and `=`, so that the names of combinations differ."""
Factor = Annotated[dict[Name, Annotated[Patch, DocumentOf(ModelSpec)]], Field(min_length=2)]
"""Merge patches on the base by level."""
Factors = dict[Name, Factor]


class FullDesign(Spec):
    """All combinations of levels."""

    name: Literal["full"] = "full"


class FractionalDesign(Spec):
    """A regular fraction of the combinations of two-level factors (Box and Hunter 1961, 'The 2^(k-p) fractional factorial
    designs'). `study plan` prints which effects it cannot tell apart."""

    name: Literal["fractional"] = "fractional"
    resolution: Literal[3, 4, 5] = Field(
        description="3: factors are not mixed up with one another, but with interactions of two; 4: nor with these, but the "
        "interactions with one another; 5: nor these."
    )


class ChosenDesign(Spec):
    """Some combinations of levels."""

    name: Literal["chosen"] = "chosen"
    combinations: Annotated[tuple[dict[str, str], ...], Strict(False), Field(min_length=2)] = Field(
        description="A level for each factor; the first combination is the one that others are compared with."
    )


Design = Annotated[FullDesign | FractionalDesign | ChosenDesign, Field(discriminator="name")]


def check_factors(factors: Factors, design: Design) -> Iterator[Problem]:
    """What prevents the design from being run."""
    names = list(factors)
    if isinstance(design, FractionalDesign):
        for factor, levels in factors.items():
            if len(levels) != 2:
                yield Problem(
                    f"factors.{factor}", f"{len(levels)} levels", "two, in a fractional design", 'Use {"name": "full"}.'
                )
        if len(names) > MOST_FACTORS:
            yield Problem("factors", f"{len(names)} factors", f"at most {MOST_FACTORS} in a fractional design")
    elif isinstance(design, ChosenDesign):
        seen: list[Levels] = []
        for index, chosen in enumerate(design.combinations):
            where = f"design.combinations[{index}]"
            if chosen.keys() != factors.keys():
                yield Problem(where, f"levels of {shorten(sorted(chosen))}", f"one of each factor: {', '.join(sorted(names))}")
            elif wrong := [factor for factor, level in chosen.items() if level not in factors[factor]]:
                known = ", ".join(factors[wrong[0]])
                yield Problem(f"{where}.{wrong[0]}", shorten(chosen[wrong[0]]), f"a level of this factor: {known}")
            elif chosen in seen:
                yield Problem(where, "a combination that was listed before", "each combination once")
            seen.append(chosen)


def check_combinations(factors: Factors, design: Design) -> Iterator[Problem]:
    """Levels of two factors that set one field to different values, and are combined in a valid design."""
    if isinstance(design, ChosenDesign):
        combined = [pair for chosen in design.combinations for pair in itertools.combinations(chosen.items(), 2)]
    else:  # of a fraction, any two levels meet too: its resolution is 3 or more
        levels = [[(factor, level) for level in each] for factor, each in factors.items()]
        combined = [pair for one, other in itertools.combinations(levels, 2) for pair in itertools.product(one, other)]
    for (factor, level), (later, other) in dict.fromkeys(combined):
        if path := conflict(factors[factor][level], factors[later][other]):
            yield Problem(
                f"factors.{later}.{other}",
                f"{path}, which factors.{factor}.{level} sets to another value",
                "a field that only one level of a combination sets",
                'Leave this combination out with {"name": "chosen", "combinations": [...]} as the design, or write variants '
                "instead of factors.",
            )


def conflict(patch: Any, other: Any, path: str = "") -> str:
    """The path of a field that two patches set to different values, or an empty string."""
    if isinstance(patch, Mapping) and isinstance(other, Mapping):
        if path in PARTS and patch and "extends" in other and "extends" not in patch:
            return path  # a stack that extends another one replaces what was there
        inside = (conflict(value, other[key], join_path(path, key)) for key, value in patch.items() if key in other)
        return next(filter(None, inside), "")
    return "" if comparable(patch) == comparable(other) else path


def count_combinations(factors: Factors, design: Design) -> int:
    """Number of combinations that are run."""
    if isinstance(design, ChosenDesign):
        return len(design.combinations)
    if isinstance(design, FullDesign):
        return math.prod(map(len, factors.values()))
    return 2 ** (len(factors) - len(generators(len(factors), design.resolution)))


def combinations(factors: Factors, design: Design) -> list[Levels]:
    """The combinations that are run; the first one is what the others are compared with."""
    if isinstance(design, ChosenDesign):
        return list(design.combinations)
    levels = {factor: list(each) for factor, each in factors.items()}
    if isinstance(design, FullDesign):
        return [dict(zip(levels, chosen, strict=True)) for chosen in itertools.product(*levels.values())]
    words = generators(len(levels), design.resolution)
    return [
        {factor: each[level] for (factor, each), level in zip(levels.items(), run, strict=True)}
        for run in runs(len(levels), words)
    ]


def variant_name(levels: Levels) -> str:
    """As in `norm=pre attention=mqa`."""
    return " ".join(f"{factor}={level}" for factor, level in levels.items())
