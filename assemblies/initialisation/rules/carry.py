"""Which source tensor initialises each tensor of a model rebuilt with another spec; without one, it is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

from pairform.assemblies.initialisation.operations import Operation, Rows
from pairform.assemblies.initialisation.pairing.compatibility import CROSS, MERGED, weight_kind
from pairform.assemblies.initialisation.rules.cross_attention import SEPARATE
from pairform.assemblies.initialisation.rules.stacks import Planned, StackRules, Target, fresh
from pairform.registry import Problem, SpecError


@dataclass(frozen=True)
class CarryRules(StackRules):
    """The rules of a stack whose blocks, width and depth may differ from its source's."""

    def check(self) -> Iterator[Problem]:
        """No check: tensors that do not fit are drawn."""
        yield from ()

    def make(self, target: Target) -> Planned:
        inner = target.name.removeprefix(f"{self.part}.")
        kind = inner.split(".")[0]
        if kind == "layers" and int(inner.split(".")[1]) >= len(self.layers):
            return fresh(target)
        if kind == "embedding" and self.stack.embedding.name != self.source_stack.embedding.name:
            return fresh(target)
        return super().make(target)

    def make_in_branch(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        for donor, place in self.places(index, branch, rest):
            if self.stored_place(self.layers[index], donor, place) in self.checkpoint.tensors:
                return self.from_branch(target, index, branch, donor, place)
        return fresh(target)

    def places(self, index: int, branch: str, rest: str) -> Iterator[tuple[str, str]]:
        """The branches of the source's layer and the tensors in them that may initialise a branch's tensor, best first."""
        layer, origin = self.stack.layers[index], self.source_stack.layers[self.layers[index]]
        donor = self.donor(index, branch)
        if donor is None:
            return
        projection = rest.removeprefix("block.")
        from_merged = origin.branches[donor].name == MERGED
        # cross-attention from merged attention: from its separate projections of the source, if it has them
        if layer.branches[branch].name == CROSS and from_merged:
            yield donor, SEPARATE + projection
        yield donor, rest
        # separate projections from a cross-attention, else from those that merged attention used for both sequences
        if rest.startswith(SEPARATE) and layer.branches[branch].name == MERGED:
            own = rest.replace(SEPARATE, "block.")
            yield from ((name, own) for name, old in origin.branches.items() if old.name == CROSS)
            if from_merged:
                yield donor, own

    def donor(self, index: int, branch: str) -> str | None:
        """The branch of the source's layer with this one's weights: the one of its name, else the only one of its kind that the
        new layer lacks, else for cross-attention the merged attention."""
        layer, origin = self.stack.layers[index], self.source_stack.layers[self.layers[index]]
        if branch in origin.branches:
            return branch
        block = layer.branches[branch]
        unused = {name: old for name, old in origin.branches.items() if name not in layer.branches}
        left = [name for name, old in unused.items() if weight_kind(old) == weight_kind(block)]
        if len(left) == 1:
            return left[0]
        merged = [name for name, old in origin.branches.items() if old.name == MERGED]
        return merged[0] if block.name == CROSS and merged else None

    def from_source(self, target: Target, name: str) -> Planned:
        try:
            return super().from_source(target, name)
        except SpecError:  # neither the shapes nor the heads agree
            return fresh(target)

    def reshape(self, target: Target, name: str, shape: tuple[int, ...]) -> Operation | None:
        if name == f"{self.source_part}.position.weight" and target.shape != shape and target.shape[1:] == shape[1:]:
            return Rows(kept=min(target.shape[0], shape[0]), initial=target.initial)
        return super().reshape(target, name, shape)
