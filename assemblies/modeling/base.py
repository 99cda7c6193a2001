"""The parts of a model, put together from a `ModelSpec`, and what can be set on it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.activation_checkpointing import Layers, checkpoint_layers
from pairform.assemblies.modeling.compile import compile_layers
from pairform.assemblies.modeling.frozen_weights import check_apply, constant_weights
from pairform.assemblies.modeling.inputs import shift_right
from pairform.assemblies.modeling.stack import Stack
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.context import Source
from pairform.registry import InputError, build_block


@runtime_checkable
class UsesKernel(Protocol):
    """A block that computes attention with the kernel of a name."""

    kernel: str

    def check_kernel(self, kernel: str) -> None:
        """Raise `InputError` if a kernel cannot do the block's work."""


@runtime_checkable
class ReadsEncoderLayer(Protocol):
    """A block that attends to one of the encoder's layers; None is its output."""

    source_layer: int | None


class Unshared:
    """Holds what belongs to one model object: a copy or a pickle of the model starts without it."""

    value: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unshared":
        return Unshared()

    def __reduce__(self) -> tuple[type["Unshared"], tuple[()]]:
        return Unshared, ()


class ModelParts(nn.Module):
    """One or two stacks, a bridge between them, and a head.

    padding:       the token that is padding in what the model reads, where a call gives no mask; None if no token is.
    source_layers: numbers of the encoder's layers that some block of the decoder reads beside the output.
    check_inputs:  check the values of inputs (ids, masks, positions) on every device, to debug. By default they are checked on
                   a CPU alone, since elsewhere that needs a synchronisation. Types and shapes are always checked. Compiled
                   code checks nothing.
    """

    check_inputs: bool = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = None if spec.encoder is None else Stack(spec.encoder, spec.sizes("encoder"))
        self.decoder = None if spec.decoder is None else Stack(spec.decoder, spec.sizes("decoder"))
        if spec.tie_embeddings:
            assert self.encoder is not None, "checked by the spec"
            assert self.decoder is not None, "checked by the spec"
            self.decoder.embedding = self.encoder.embedding
        read = {module.source_layer for module in self.modules() if isinstance(module, ReadsEncoderLayer)}
        self.source_layers = tuple(sorted(layer for layer in read if layer is not None))
        self.bridge = build_block(spec.bridge, spec.bridge_sizes, "bridge")
        self.head = build_block(spec.head, spec.head_sizes, "head")
        self.compiled_step = Unshared()
        self.padding = spec.tokens_of(next(iter(spec.stacks))).padding
        self.tie: str | None = getattr(spec.head, "tie", None)  # not asked of the spec later: torch cannot compile that

    def tied(self) -> Tensor | None:
        """The embedding table that the head shares, if it shares one."""
        return None if self.tie is None else self.get_parameter(f"{self.tie}.embedding.weight")

    def lowered(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... table_width"]:
        """The last hidden states as the head reads them: as wide as the table that it shares, if it shares one."""
        lower = None if self.tie is None else getattr(self.get_submodule(f"{self.tie}.embedding"), "lower", None)
        return hidden if lower is None else lower(hidden)

    def source(
        self,
        hidden: Float[Tensor, "batch length width"],
        valid: Tensor | None,
        segments: Tensor | None = None,
        layers: Mapping[int, Tensor] | None = None,
    ) -> Source:
        """The encoder's output, and that of single layers, as the decoder reads them: over the bridge."""
        return Source(hidden, valid, segments, layers or {}).each(self.bridge)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, where dropout is at work; quantised or prepacked weights, which get no gradient, are an error."""
        if mode and (problem := constant_weights(self, "train", why=", which get no gradient")) is not None:
            raise InputError(problem)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move every tensor, or none."""
        check_apply(self, fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def checkpoint_layers(self, layers: Layers | Mapping[str, Layers] = "all") -> None:
        """In training, keep only the input of these layers and compute the rest again in the backward pass, bit for bit.

        "all", "none", 2 for every second layer from the first on, numbers such as `[0, 3, -1]`, or any of these by stack:
        `{"decoder": "all"}`, where stacks that are not named have none. It is a setting of this object, and not saved.
        """
        checkpoint_layers(self, layers)

    def compile_layers(self, **options: Any) -> None:
        """Compile each layer by itself, in place, when it first runs; layers of one kind share their code, for any lengths.

        It takes a compiler a fraction of the time that the whole model takes. `options` are those of `torch.compile`.
        """
        compile_layers(self, **options)

    def use_kernel(self, kernel: str) -> None:
        """Let every attention block use `kernel`. One that cannot do some block's work is an error that lists those that can,
        and changes none."""
        blocks = {name: module for name, module in self.named_modules() if isinstance(module, UsesKernel)}
        for name, block in blocks.items():
            try:
                block.check_kernel(kernel)
            except InputError as error:
                raise InputError([problem.inside(name) for problem in error.problems]) from None
        for block in blocks.values():
            block.kernel = kernel

    def shift_right(self, ids: Int[Tensor, "batch length"], segments: Tensor | None = None) -> Int[Tensor, "batch length"]:
        """`ids` one place later, behind the start token of each row or segment; ignored labels become padding."""
        return shift_right(ids, self.spec.tokens, segments)
