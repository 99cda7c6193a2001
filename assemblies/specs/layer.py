"""The spec of a layer: named residual branches, their order, and the placement of norms."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, Strict, ValidationError, model_validator
from torch import nn

import pairform.blocks  # noqa: F401  (registers the built-in blocks)
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import BlockSpec, Probability, Problem, Sizes, Slot, Spec, freeze, nested, shorten, suggest
from pairform.registry.validation import problems_in

Norm = Annotated[BlockSpec, Slot("norm")]
Branch = Annotated[BlockSpec, Slot("attention", "feed_forward")]
Placement = Literal["pre", "post", "inner_post", "sandwich"]
MOST_IN_LAYER = 64
"""Branches of a layer, and norms of single ones."""
TAKEN = frozenset(("initial", "layer_input", "output_scale", "parallel_groups", "spec", *dir(nn.Module())))
"""Attributes of the module of a layer, which cannot be names of branches too."""
Group = str | Annotated[tuple[str, ...], Field(min_length=1), Strict(False)]


class DropPath(Spec):
    """Drop a branch at random in training, for each row of the batch (stochastic depth; Huang et al. 2016, arXiv 1603.09382,
    section 3)."""

    rate: Probability = Field(description="Probability that a branch is skipped, in the last layer.")
    growth: Literal["constant", "linear"] = Field(
        default="linear", description="constant: the same rate in each layer; linear: `rate * l / L` in layer l of L, from 1."
    )

    def at(self, sizes: Sizes) -> float:
        """The rate in the layer of `sizes`."""
        return self.rate if self.growth == "constant" else self.rate * (sizes.layer + 1) / sizes.depth

    def sited(self, sizes: Sizes) -> dict[str, Any]:
        """As `BlockSpec.sited`."""
        return {} if self.growth == "constant" else {"rate": self.at(sizes), "growth": "constant"}


class LayerSpec(Spec):
    """Residual branches around one hidden state, in `order`."""

    norm: Norm = Field(description="Norm of each branch.")
    norms: Annotated[dict[str, Norm], Field(max_length=MOST_IN_LAYER), AfterValidator(freeze)] = Field(
        default={}, description="Norms of single branches, by name, in place of `norm`."
    )
    placement: Placement = Field(
        default="pre",
        description="Where the norm is applied. pre: `x + f(norm(x))`; post: `norm(x + f(x))`; inner_post: `x + norm(f(x))` "
        "(OLMo 2, arXiv 2501.00656, section 3.1); sandwich: `x + norm(f(norm(x)))`. "
        "Peri-LN (Kim et al. 2025, arXiv 2502.02732) is sandwich with a norm in the embedding too.",
    )
    order: Annotated[tuple[Group, ...], Strict(False)] = Field(
        description="Branches in order. May name absent ones, which keep their position for a patch that adds them. Branches "
        "in a nested list are parallel: all read the same hidden states, each through its own norm, and are added one after "
        "another (GPT-NeoX; Black et al. 2022, arXiv 2204.06745, section 2.1)."
    )
    branches: Annotated[dict[str, Branch], Field(max_length=MOST_IN_LAYER), AfterValidator(freeze)] = Field(
        description="Attention and feed-forward blocks by name."
    )
    residual: Annotated[BlockSpec, Slot("residual")] = Field(
        default=BlockSpec(name="add"), description="How a branch's output is joined with the hidden states."
    )
    dropout: Probability = Field(default=0.0, description="Dropout rate on each branch's output.")
    drop_path: DropPath | None = Field(default=None, description="Stochastic depth. Default: none.")
    output_scale: Literal["stored", "learned"] | None = Field(
        default=None,
        description="Multiply the layer's output by a number of its own, initially 1. stored: training does not change it "
        "(Gemma 4). Default: none.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _unnamed_branches(cls, document: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Of a branch that order does not name, the error says so, and not what is wrong in it: the name may be misspelt."""
        try:
            return validate(document)
        except ValidationError as error:
            fields = document if isinstance(document, Mapping) else {}
            unnamed = list(unnamed_branches(fields.get("order"), fields.get("branches")))
            if not unnamed:
                raise
            there = tuple(f"{problem.where}." for problem in unnamed)
            others = (each for each in problems_in(error, document, cls) if not f"{each.where}.".startswith(there))
            raise nested([*unnamed, *others]) from None

    @model_validator(mode="after")
    def _order_names_branches(self) -> Self:
        names = [name for group in self._order for name in group]
        named = set(names)
        problems = list(unnamed_branches(self.order, self.branches))
        for name in self.branches:
            if not name.isidentifier() or name.startswith("_"):
                expected = "a name of letters, digits and underscores that starts with a letter"
                problems.append(Problem(f"branches.{name}", "this name", expected))
            elif name in TAKEN:
                found, remedy = "the name of an attribute that every layer has", "Rename the branch, in order too."
                problems.append(Problem(f"branches.{name}", found, "another name", remedy))
        problems += [
            Problem(f"norms.{name}", "the norm of a branch that order does not name", f"{name!r} in order")
            for name in self.norms
            if name not in named
        ]
        if len(named) < len(names):
            problems.append(Problem("order", shorten(names), "each branch once"))
        if self.placement == "post" and any(len(group) > 1 for group in self.parallel_groups):
            problems.append(Problem("order", "parallel branches under the placement 'post'", "one after another, or 'pre'"))
        if self.placement not in (fitting := self.residual.placements):
            found = f"{self.placement!r} with {self.residual.name}"
            problems.append(Problem("placement", found, " or ".join(map(repr, fitting))))
        if not self.present:
            problems.append(Problem("branches", "none", "at least one branch"))
        if problems:
            raise nested(problems)
        return self

    @property
    def _order(self) -> list[tuple[str, ...]]:
        return [(group,) if isinstance(group, str) else group for group in self.order]

    @property
    def parallel_groups(self) -> list[list[str]]:
        """The names of the branches that the layer has, in order; those of one group run in parallel."""
        groups = [[name for name in group if name in self.branches] for group in self._order]
        return [group for group in groups if group]

    @property
    def present(self) -> list[str]:
        """The names of the branches that the layer has, in order."""
        return [name for group in self.parallel_groups for name in group]

    def norm_of(self, branch: str) -> BlockSpec:
        """The norm of the branch of this name."""
        return self.norms.get(branch, self.norm)

    @property
    def self_attention(self) -> AttentionFields:
        """The branch of this name; the defaults of its fields if there is none."""
        return AttentionFields.of(self.branches.get("self_attention"))

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        """Problems of the layer's blocks in a stack with these sizes."""
        yield from (problem.inside("norm") for problem in self.norm.check(sizes))
        for name, norm in self.norms.items():
            yield from (problem.inside(f"norms.{name}") for problem in norm.check(sizes))
        yield from (problem.inside("residual") for problem in self.residual.check(sizes))
        for name in self.present:
            yield from (problem.inside(f"branches.{name}") for problem in self.branches[name].check(sizes))

    def sited(self, sizes: Sizes) -> dict[str, Any]:
        """As `BlockSpec.sited`, for all blocks of the layer."""
        branches = {name: patch for name in self.present if (patch := self.branches[name].sited(sizes))}
        drop_path = {} if self.drop_path is None else self.drop_path.sited(sizes)
        found = {"branches": branches, "residual": self.residual.sited(sizes), "drop_path": drop_path}
        return {field: patch for field, patch in found.items() if patch}


def unnamed_branches(order: Any, branches: Any) -> Iterator[Problem]:
    """Branches that order does not name. Nothing of an order or of branches that are not valid by themselves."""
    if not isinstance(order, list | tuple) or not isinstance(branches, Mapping) or len(branches) > MOST_IN_LAYER:
        return
    known = [name for group in order for name in (group if isinstance(group, list | tuple) else (group,))]
    if not all(isinstance(name, str) for name in known):
        return
    present = [name for name in dict.fromkeys(known) if name in branches]
    for name, branch in branches.items():
        if name not in present and isinstance(branch, Mapping | BlockSpec):
            near = suggest(name, present) or suggest(name, known[:MOST_IN_LAYER])
            remedy = f"{near} To add a branch of this name, name it in order too.".strip()
            yield Problem(
                f"branches.{name}",
                "a branch that order does not name",
                f"one of {', '.join(present)}" if present else "none",
                remedy,
            )
