"""The spec of a layer: named residual branches, their order, and where norms stand."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Strict, model_validator

import pairform.blocks  # noqa: F401  (registers the built-in blocks)
from pairform.registry import BlockSpec, Probability, Problem, Sizes, Slot, Spec, freeze, nested

Norm = Annotated[BlockSpec, Slot("norm")]
Branch = Annotated[BlockSpec, Slot("attention", "feed_forward")]
Placement = Literal["pre", "post", "sandwich"]


class LayerSpec(Spec):
    """Residual branches around one hidden state, in `order`.

    placement: where the norm stands. pre: `x + f(norm(x))`; post: `norm(x + f(x))`; sandwich: `x + norm(f(norm(x)))`.
    order:     may name branches that are absent (they keep their place for a patch that adds them).
    dropout:   on what each branch adds.
    """

    norm: Norm
    placement: Placement = "pre"
    order: Annotated[tuple[str, ...], Strict(False)]
    branches: Annotated[dict[str, Branch], AfterValidator(freeze)]
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _order_names_branches(self) -> Self:
        problems = [
            Problem(f"branches.{name}", "a branch that order does not name", f"{name!r} in order")
            for name in self.branches
            if name not in self.order
        ]
        if len(set(self.order)) < len(self.order):
            problems.append(Problem("order", f"{list(self.order)}", "each branch once"))
        if not self.present:
            problems.append(Problem("branches", "none", "at least one branch"))
        problems += [
            Problem(f"branches.{name}", "this name", "a name of letters, digits and underscores that starts with a letter")
            for name in self.branches
            if not name.isidentifier() or name.startswith("_")
        ]
        if problems:
            raise nested(problems)
        return self

    @property
    def present(self) -> list[str]:
        """The branches that the layer has, in their order."""
        return [name for name in self.order if name in self.branches]

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        yield from (problem.inside("norm") for problem in self.norm.check(sizes))
        for name in self.present:
            yield from (problem.inside(f"branches.{name}") for problem in self.branches[name].check(sizes))
