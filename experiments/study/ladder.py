"""Sizes in a study: a base or a variant scaled by one setting, and the rungs of a ladder of sizes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.scaling.scaled_model import ScaleSpec, scale_model
from pairform.registry import DocumentOf, Patch, Problem, SpecError, apply_patch, resolve

SCALE, EXTENDS = "scale", "extends"
FEWEST_RUNGS, MOST_RUNGS = 3, 16
"""Three sizes are the fewest from which a floor, a coefficient and an exponent can be told."""
Name = Annotated[str, Field(pattern=r"^[^\s=]{1,64}$")]
Ladder = dict[Name, Annotated[Patch, DocumentOf(ModelSpec)]]
"""Merge patches by name, each of which makes every variant another size."""


def check_ladder(ladder: Ladder, factors: bool, search: bool) -> Iterator[Problem]:
    """What prevents a ladder from being run."""
    if not ladder:
        return
    if not FEWEST_RUNGS <= len(ladder) <= MOST_RUNGS:
        yield Problem("ladder", f"{len(ladder)} sizes", f"{FEWEST_RUNGS} to {MOST_RUNGS}, of which fits are made")
    for name, other in (("factors", factors), ("search", search)):
        if other:
            yield Problem("ladder", f"a ladder and {name} together", "one of them")


def resolved_base(base: str | Mapping[str, Any], folder: Path) -> ModelSpec:
    """The base of a study that is a preset, a file or a document: `extends`, then `scale`, then its other fields.

    Raises:
        SpecError: with the paths of what is wrong.
    """
    document: dict[str, Any] = {EXTENDS: base} if isinstance(base, str) else dict(base)
    size = document.pop(SCALE, None)
    if size is None:
        return ModelSpec.read(resolve(ModelSpec, document, folder), where="base")
    ref = document.pop(EXTENDS, None)
    whole = ModelSpec.read(resolve(ModelSpec, document if ref is None else {EXTENDS: ref}, folder), where="base")
    try:
        scaled = rescaled(whole, size, whole)
    except SpecError as error:
        raise SpecError([problem.inside("base") for problem in error.problems]) from None
    if ref is None:
        return scaled
    return ModelSpec.read(apply_patch(ModelSpec, scaled.document(), document, folder), where="base")


def rescaled(spec: ModelSpec, size: Any, base: ModelSpec) -> ModelSpec:
    """A model scaled by the factors that give `base` this size; `SpecError` for an invalid one."""
    wanted = ScaleSpec.read(size, where=SCALE)
    try:
        return scale_model(spec, wanted, base)
    except SpecError as error:
        raise SpecError([problem.inside(SCALE) for problem in error.problems]) from None
