"""The parts of a model, built from a `ModelSpec`, and its settings."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.adapters import embedding_inside, table_of
from pairform.assemblies.modeling.frozen_weights import ConstantLinear, constant_weights
from pairform.assemblies.modeling.inputs import shift_right
from pairform.assemblies.modeling.stack import Stack
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.view import show_model
from pairform.blocks.context import Source
from pairform.registry import InputError, Problem, build_block

Layers: TypeAlias = Literal["all", "none"] | int | Sequence[int]
"""All layers, none, every n-th from the first on, or layer numbers (from 0, or negative from the last)."""
COMPILATIONS = 8
"""Compilations per kind of layer: in training or not, with gradients or not, with masks or without, and some more."""


@runtime_checkable
class UsesKernel(Protocol):
    """A block that computes attention with a kernel chosen by name."""

    kernel: str

    def check_kernel(self, kernel: str) -> None:
        """Raise `InputError` if the kernel does not support the block."""


@runtime_checkable
class ReadsEncoderLayer(Protocol):
    """A block that attends to the output of an encoder layer, by number; None is the encoder's output."""

    source_layer: int | None


class Unshared:
    """A value that belongs to one model object, such as compiled code. Copies and pickles of the model start without it."""

    value: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unshared":
        return Unshared()

    def __reduce__(self) -> tuple[type["Unshared"], tuple[()]]:
        return Unshared, ()


class ModelParts(nn.Module):
    """One or two stacks, a bridge between them, and a head.

    padding:       the token ID that is padding in the input if a call has no mask; None if there is none.
    source_layers: numbers of the encoder layers that some block of the decoder attends to, besides the encoder's output.
    check_inputs:  check the values of inputs (IDs, masks, positions) on every device, for debugging. By default they are
                   checked on a CPU only, since elsewhere that needs a synchronisation. Types and shapes are always checked.
                   Compiled code checks nothing.
    generation:    the settings of generation, by default those of the folder that the model was loaded from.
    all_finished:  from whether generation has finished here, `[]`, to whether it has in all processes that share this model.
    agree:         raises `InputError` unless all processes that share this model pass the same numbers. Its first argument is
                   what they are.
    """

    check_inputs: bool = False
    generation: GenerationSpec = GenerationSpec()
    all_finished: Callable[[Tensor], Tensor] | None = None
    agree: Callable[[str, tuple[int, ...]], None] | None = None

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.assemble(spec)

    def assemble(self, spec: ModelSpec) -> None:
        """Build the parts."""
        self.spec = spec
        self.encoder = None if spec.encoder is None else Stack(spec.encoder, spec.sizes("encoder"))
        self.decoder = None if spec.decoder is None else Stack(spec.decoder, spec.sizes("decoder"))
        if spec.tie_embeddings:
            assert self.encoder is not None, "checked by the spec"
            assert self.decoder is not None, "checked by the spec"
            # one module with two names: `named_parameters` lists its weight once, under the encoder's
            self.decoder.embedding = self.encoder.embedding
        read = {module.source_layer for module in self.modules() if isinstance(module, ReadsEncoderLayer)}
        self.source_layers = tuple(sorted(layer for layer in read if layer is not None))
        self.bridge = build_block(spec.bridge, spec.bridge_sizes, "bridge")
        self.head = build_block(spec.head, spec.head_sizes, "head")
        self.compiled_step = Unshared()
        self.padding = spec.tokens_of(next(iter(spec.stacks))).padding
        self.ties = spec.tie_embeddings
        self.tie: str | None = spec.head_tie  # read once: torch cannot compile access to the spec

    def _repr_html_(self) -> str:
        """What a notebook shows. A tensor that several parts share counts once."""
        counted = {id(parameter): parameter for parameter in self.parameters()}.values()
        dtypes, devices = (", ".join(sorted({str(getattr(each, name)) for each in counted})) for name in ("dtype", "device"))
        numbers = (("parameters", f"{sum(each.numel() for each in counted):,}"), ("dtype", dtypes), ("device", devices))
        return show_model(self.spec, f"model: {self.spec.assembly.replace('_', '-')}", numbers)

    def tied(self) -> Tensor | None:
        """The embedding table that the head shares, `[vocabulary, table_width]`, if it does."""
        return None if self.tie is None else table_of(self.get_submodule(f"{self.tie}.embedding"))

    def lowered(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... table_width"]:
        """The last hidden states as the input of the head: in the width of the tied embedding table, if there is one."""
        if self.tie is None:
            return hidden
        lower = getattr(embedding_inside(self.get_submodule(f"{self.tie}.embedding")), "lower", None)
        return hidden if lower is None else lower(hidden)

    def share_embedding(self) -> None:
        """Give the decoder the encoder's embedding again, if they share one and an adapter was put around it or taken away."""
        if not self.ties or self.encoder is None or self.decoder is None:
            return
        own, shared = self.decoder.embedding, self.encoder.embedding
        if own is not shared and (own is embedding_inside(shared) or shared is embedding_inside(own)):
            self.decoder.embedding = shared

    def source(
        self,
        hidden: Float[Tensor, "batch length width"],
        valid: Tensor | None,
        segments: Tensor | None = None,
        layers: Mapping[int, Tensor] | None = None,
    ) -> Source:
        """The source of the decoder: the encoder's output and `layers`, outputs of single layers, through the bridge.

        valid: False at padding, `[batch, length]`; None: there is no padding.
        """
        return Source(hidden, valid, segments, layers or {}).each(self.bridge)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode.

        Raises:
            InputError: the weights are quantised or prepacked, and get no gradient.
        """
        switches = mode and not self.training  # else the search through all modules would run in each training step
        if switches and (problem := constant_weights(self, "train", why=", which get no gradient")) is not None:
            raise InputError(problem)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move all tensors, or none if some layer does not allow it."""
        for module in self.modules():
            if isinstance(module, ConstantLinear):
                module.check_apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def checkpoint_layers(self, layers: Layers | Mapping[str, Layers] = "all") -> None:
        """Activation checkpointing: in training, keep only the input of these layers and recompute them in the backward pass.

        Args:
            layers: "all", "none", 2 for every second layer from the first on, numbers such as `[0, 3, -1]`, or any of these by
                stack: `{"decoder": "all"}`, where stacks that are not named have none.

        Raises:
            InputError: an unknown stack, or layers that it does not have.

        Gradients are bit-identical to those without it. The setting belongs to this object and is not saved.
        """
        stacks = {name: module for name, module in self.named_modules() if isinstance(module, Stack)}
        requested = layers if isinstance(layers, Mapping) else dict.fromkeys(stacks, layers)
        if unknown := [name for name in requested if name not in stacks]:
            expected = f"one of {', '.join(stacks)}"
            raise InputError([Problem(f"checkpoint_layers.{name}", "no such stack", expected) for name in unknown])
        chosen = {name: layer_numbers(requested.get(name, "none"), len(stack.layers)) for name, stack in stacks.items()}
        for name, stack in stacks.items():
            stack.checkpointed = chosen[name]

    def compile_layers(self, **options: Any) -> None:
        """Compile each layer separately, in place, at its first run. Layers of one kind share code, for all lengths.

        This takes a fraction of the time of compiling the whole model. `options` are those of `torch.compile`.
        """
        stacks = [module for module in self.modules() if isinstance(module, Stack)]
        options = {"dynamic": True, **options}
        if "recompile_limit" in inspect.signature(torch.compile).parameters:  # beyond the limit layers run eagerly
            # equal layers share one spec object
            kinds = sum(len(set(map(id, stack.spec.layers))) for stack in stacks)
            options.setdefault("recompile_limit", COMPILATIONS * kinds)
        for stack in stacks:
            for layer in stack.layers:
                layer.compile(**options)

    def use_kernel(self, kernel: str) -> None:
        """Let every attention block use `kernel`.

        Raises:
            InputError: the kernel does not support some block; lists those that do. No block is changed then.
        """
        blocks = {name: module for name, module in self.named_modules() if isinstance(module, UsesKernel)}
        for name, block in blocks.items():
            try:
                block.check_kernel(kernel)
            except InputError as error:
                raise InputError([problem.inside(name) for problem in error.problems]) from None
        for block in blocks.values():
            block.kernel = kernel

    def shift_right(self, ids: Int[Tensor, "batch length"], segments: Tensor | None = None) -> Int[Tensor, "batch length"]:
        """`ids` shifted right by one, after the start token of each row or segment; ignored labels become padding."""
        return shift_right(ids, self.spec.tokens, segments)


def layer_numbers(layers: Layers, depth: int) -> frozenset[int]:
    """The layer numbers, from 0, that `layers` stands for in a stack of `depth` layers."""
    if layers == "none":
        return frozenset()
    if layers == "all":
        layers = 1
    if isinstance(layers, int) and layers > 0:
        return frozenset(range(0, depth, layers))
    if isinstance(layers, str | int) or any(not -depth <= layer < depth for layer in layers):
        expected = f'"all", "none", 1 or more, or layer numbers from {-depth} to {depth - 1}'
        raise InputError(Problem("checkpoint_layers", repr(layers), expected))
    return frozenset(layer % depth for layer in layers)
