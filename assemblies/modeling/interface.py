"""What checks and generation use of a model, so that they need not import it."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from pairform.assemblies.modeling.stack import Stack
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.context import Source


class ModelInterface(Protocol):
    """The parts of `Model`; see its attributes and methods."""

    spec: ModelSpec
    encoder: Stack | None
    decoder: Stack | None
    head: Any
    padding: int | None
    source_layers: tuple[int, ...]
    check_inputs: bool
    training: bool

    def source(
        self,
        hidden: Tensor,
        valid: Tensor | None,
        segments: Tensor | None = None,
        layers: Mapping[int, Tensor] | None = None,
    ) -> Source: ...
    def lowered(self, hidden: Tensor) -> Tensor: ...
    def tied(self) -> Tensor | None: ...
    def eval(self) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def get_submodule(self, target: str) -> Any: ...
