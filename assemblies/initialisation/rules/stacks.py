"""Which operation and which source tensor initialise each target tensor (T5Gemma, arXiv 2504.06225, section 3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.operations import Copy, Fresh, MeanHeads, Operation, Parts, RepeatHeads, Rows, ScaledRow
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.pairing.compatibility import equivalent, transferable
from pairform.assemblies.initialisation.plan import Role, Source
from pairform.assemblies.specs.depth_dependent import Move
from pairform.assemblies.specs.model import LayerSpec, ModelSpec, StackSpec
from pairform.blocks.functional.initializers import Constant, Normal
from pairform.registry import Problem, SpecError

Part = Literal["encoder", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "decoder")
Planned = tuple[Operation, Source | None]
GROUPED = ("k_proj", "v_proj", "source_k_proj", "source_v_proj")
"""The projections of attention with kv_heads heads."""


class Heads(NamedTuple):
    """How many channels each head of a block has. grouped: whether several heads of queries may share keys and values."""

    head_dim: int
    value_dim: int
    rope_dim: int
    grouped: bool

    def __str__(self) -> str:
        return f"heads with head_dim {self.head_dim}, value_dim {self.value_dim} and rope_dim {self.rope_dim}"


@dataclass(frozen=True)
class Target:
    """A tensor of the new model."""

    name: str
    shape: tuple[int, ...]
    initial: Constant | Normal


@dataclass(frozen=True)
class StackRules:
    """The rules for one stack of the new model.

    Attributes:
        part: the stack.
        role: of its source in the plan.
        move: the origin of its layers.
    """

    part: Part
    role: Role
    target: ModelSpec
    checkpoint: Checkpoint
    move: Move
    options: Options

    @property
    def source_part(self) -> str:
        return self.move.part

    @property
    def source_stack(self) -> StackSpec:
        return self.move.stack

    @property
    def layers(self) -> tuple[int, ...]:
        return self.move.layers

    @property
    def stack(self) -> StackSpec:
        return self.target.stacks[self.part]

    def kept_layer(self, old: int) -> LayerSpec:
        """The new layer that a source's layer initialises."""
        return self.stack.layers[self.layers.index(old)]

    def check(self) -> Iterator[Problem]:
        """Why the source does not fit this stack as a whole."""
        if self.stack.width != self.source_stack.width:
            found = f"a width of {self.stack.width}"
            yield Problem(f"{self.part}.width", found, f"{self.source_stack.width}, as in {self.checkpoint.folder}")
        if self.stack.depth != len(self.layers):
            remedy = f"Choose the layers to keep with {self.part}_layers, or change the depth."
            yield Problem(
                f"{self.part}.depth", f"{self.stack.depth} layers", f"{len(self.layers)}, as kept of the source", remedy
            )

    def make(self, target: Target) -> Planned:
        """The operation for `target`, whose name starts with this stack's."""
        inner = target.name.removeprefix(f"{self.part}.")
        part = inner.partition(".")[0]
        if part in ("norm", "embedding_norm", "position") and not equivalent(
            getattr(self.stack, part), getattr(self.source_stack, part)
        ):
            return fresh(target)
        if inner == "embedding.end_of_image":
            return self.end_of_image(target)
        if inner.startswith("layer_inputs."):
            return self.layer_inputs(target, inner)
        if not inner.startswith("layers."):
            return self.from_source(target, f"{self.source_part}.{inner}")
        _, number, owner, *rest = inner.split(".", 3)
        if owner not in self.stack.layers[int(number)].branches:  # of the layer itself: its input, its output's scale
            same = owner != "layer_input" or self.layer_inputs_agree
            old = f"{self.source_part}.layers.{self.layers[int(number)]}."
            return self.from_source(target, old + ".".join([owner, *rest])) if same else fresh(target)
        return self.make_in_branch(target, int(number), owner, rest[0])

    def layer_inputs(self, target: Target, inner: str) -> Planned:
        """What makes the inputs of all layers: the parts of the kept ones."""
        if not self.layer_inputs_agree:
            return fresh(target)
        name = f"{self.source_part}.{inner}"
        stored = self.checkpoint.tensors.get(name)
        if stored is None or inner.startswith("layer_inputs.norm.") or len(self.layers) == self.source_stack.depth:
            return self.from_source(target, name)
        assert self.stack.layer_input is not None, "as the source's"
        # by token and channel, or by channel and width
        axis: Literal[0, 1] = 1 if inner == "layer_inputs.weight" else 0
        operation = Parts(axis=axis, size=self.stack.layer_input.channels, kept=self.layers)
        return (operation, Source(role=self.role, tensor=name)) if operation.fits(stored.shape, target.shape) else fresh(target)

    @property
    def layer_inputs_agree(self) -> bool:
        """Whether the layers' inputs have the same channels and norms as in the source."""
        new, old = self.stack.layer_input, self.source_stack.layer_input
        return new is not None and old is not None and new.channels == old.channels and equivalent(new.norm, old.norm)

    def end_of_image(self, target: Target) -> Planned:
        """The source's own parameter, else that token's row of its table, scaled as the source scales it (T5Gemma 2)."""
        own = self.checkpoint.stored_name(f"{self.source_part}.embedding.end_of_image")
        table = self.checkpoint.stored_name(f"{self.source_part}.embedding.weight")
        token = self.stack.embedding.document().get("end_of_image", 0)
        scale = self.source_stack.embedding.document().get("scale", 1.0)
        if own in self.checkpoint.tensors:
            return self.from_source(target, own)
        if table not in self.checkpoint.tensors or token >= self.checkpoint.tensors[table].shape[0]:
            return fresh(target)
        factor = self.source_stack.width**0.5 if scale == "sqrt_width" else float(scale)
        return ScaledRow(row=token, factor=factor), Source(role=self.role, tensor=table)

    def make_in_branch(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        """The operation for the tensor `rest` of a branch of layer `index`."""
        return self.from_branch(target, index, branch, branch, rest)

    def from_branch(self, target: Target, index: int, branch: str, donor: str, rest: str) -> Planned:
        """From the same tensor in the branch `donor` of the source layer, if the blocks are of one kind."""
        layer, origin = self.stack.layers[index], self.source_stack.layers[self.layers[index]]
        if donor not in origin.branches:
            return fresh(target)
        if not transferable(layer, origin, branch, donor, rest):
            return fresh(target)
        return self.from_source(target, self.stored_place(self.layers[index], donor, rest))

    def stored_place(self, index: int, branch: str, rest: str) -> str:
        """The name in the source of a layer's tensor, or of the earlier layer's that it shares."""
        # from this layer back to the first: a shared table is that of the nearest earlier layer that has one
        names = [f"{self.source_part}.layers.{layer}.{branch}.{rest}" for layer in reversed(range(index + 1))]
        own = names[0]
        shared = [name for name in names if name in self.checkpoint.tensors] if rest.startswith("block.position.") else []
        return shared[0] if shared else own

    def from_source(self, target: Target, name: str) -> Planned:
        """`name` of the source, reshaped to the target's shape; drawn if the source has no such tensor."""
        name = self.checkpoint.stored_name(name)
        stored = self.checkpoint.tensors.get(name)
        if stored is None:
            return fresh(target)
        operation = self.reshape(target, name, stored.shape)
        if operation is None:
            new, old = f"the shape {list(target.shape)}", f"{list(stored.shape)}"
            if stored.shape == target.shape:
                new, old = f"{heads_of(self.stack, target.name)}", f"{heads_of(self.source_stack, name)}"
            found = f"{new} in the spec and {old} in {self.checkpoint.folder}"
            remedy = "Only vocabularies, kv_heads and depth may differ from the source."
            raise SpecError(Problem(target.name, found, "shapes and heads that agree", remedy))
        return operation, Source(role=self.role, tensor=name)

    def reshape(self, target: Target, name: str, shape: tuple[int, ...]) -> Operation | None:
        """The operation that turns a source tensor of `shape` into the target's shape, if there is one."""
        new, old = heads_of(self.stack, target.name), heads_of(self.source_stack, name)
        if shape == target.shape:
            return Copy() if new == old else None  # two heads of 16 channels have the shape of four heads of 8
        if target.shape[1:] != shape[1:]:
            return None
        if target.name in (f"{self.part}.embedding.weight", f"{self.part}.layer_inputs.weight"):
            return Rows(kept=min(target.shape[0], shape[0]), initial=target.initial)
        if old is None or new != old or not old.grouped or name.split(".")[-2] not in GROUPED:
            return None
        if shape[0] % target.shape[0] == 0:
            return MeanHeads(head_dim=old.head_dim, group=shape[0] // target.shape[0])
        if target.shape[0] % shape[0] == 0:
            return RepeatHeads(head_dim=old.head_dim, times=target.shape[0] // shape[0])
        return None


def fresh(target: Target) -> Planned:
    return Fresh(initial=target.initial), None


def heads_of(stack: StackSpec, tensor: str) -> Heads | None:
    """The heads of the block that holds a tensor of a layer; None for any other tensor and for a block without heads."""
    place, in_block, _ = tensor.partition(".block.")
    if not in_block:
        return None
    _, _, layer, branch = place.split(".")
    spec = stack.layers[int(layer)].branches[branch]
    if getattr(spec, "heads", None) is None:
        return None
    fields = spec.document()
    head_dim = fields.get("head_dim") or stack.width // fields["heads"]
    value_dim = fields.get("value_dim") or head_dim
    return Heads(head_dim, value_dim, fields.get("rope_dim", 0), "kv_heads" in type(spec).model_fields)


def head_rule(target: Target, rules: StackRules) -> Planned:
    """The head's own tensors: those of the last stack's source, its tied table for an untied projection, or drawn."""
    name, new = target.name, rules.target.head
    checkpoint, spec = rules.checkpoint, rules.checkpoint.spec
    if name == "head.weight" and new.name == spec.head.name in ("lm", "masked_lm") and (tie := spec.head_tie):
        name = checkpoint.stored_name(f"{tie}.embedding.weight")
    stored = checkpoint.tensors.get(name)
    if stored is None or new.name != spec.head.name or stored.shape[1:] != target.shape[1:]:
        return fresh(target)
    source = Source(role=rules.role, tensor=name)
    if stored.shape == target.shape:
        return Copy(), source
    return Rows(kept=min(target.shape[0], stored.shape[0]), initial=target.initial), source
