"""What a spec builds: a model without weights, its parameters, and the distributions of their initial values."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils._device import DeviceContext

from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.feedforward import WideLinear
from pairform.blocks.functional.initializers import Constant, Normal, initial_of
from pairform.blocks.functional.outline import named_modules, outline
from pairform.registry import InputError, Problem, shorten


def check_place(device: str | torch.device, dtype: torch.dtype | None, kernel: str = "auto") -> None:
    """Raise `InputError` unless weights of `dtype` can be on `device`, and `kernel` is a string."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        meant = isinstance(dtype, str) and isinstance(getattr(torch, dtype, None), torch.dtype)
        hint = f"Did you mean torch.{dtype}?" if meant else ""
        raise InputError(Problem("dtype", shorten(dtype), "a floating-point dtype of torch's", hint))
    if not isinstance(kernel, str):
        raise InputError(Problem("kernel", shorten(kernel), "the name of a kernel"))
    if device is None:
        raise InputError(Problem("device", "None", "a device that torch can use here"))
    try:
        torch.empty(0, device=device)
    # AssertionError: a torch built without CUDA
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        found = f"{shorten(device)} ({str(error).splitlines()[0]})"
        raise InputError(Problem("device", found, "a device that torch can use here")) from None


def check_seed(seed: object) -> int:
    """`seed` as an int. NumPy integers are accepted, True and 1.5 are not."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise InputError(Problem("seed", shorten(seed), "a whole number"))
    try:
        return operator.index(seed)
    except (TypeError, ValueError):
        raise InputError(Problem("seed", shorten(seed), "a whole number")) from None


def skeleton(spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Model:
    """The model on the meta device, in eval mode: names and shapes without weights."""
    with Meta():
        model = Model(spec)
    return model.to(dtype).eval()


class Meta(DeviceContext):
    """Create tensors on the meta device and skip torch's initialisation, which would take a third of the time there."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]  # torch itself passes it by name
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Parameter:
    """Shape and initial distribution of a parameter. wide: it stays in float32 in a float16 model."""

    shape: tuple[int, ...]
    initial: Constant | Normal
    wide: bool


@lru_cache(maxsize=32)
def parameters_of(spec: ModelSpec) -> Mapping[str, Parameter]:
    """The parameters of a spec's model by name, in its order. Cached, since loading, planning and saving all need them."""
    with Meta(), outline():
        model = Model(spec)
    wide = {path for path, module in named_modules(model) if isinstance(module, WideLinear)}
    return MappingProxyType(
        {
            name: Parameter(tuple(each.shape), initial, name.rpartition(".")[0] in wide)
            for name, each, initial in distributions(model)
        }
    )


def distributions(model: Model) -> Iterator[tuple[str, nn.Parameter, Constant | Normal]]:
    """Each parameter with its name and the distribution of its initial values."""
    for prefix, module in named_modules(model):
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{prefix}.{name}", parameter, initial_of(module, name, model.spec.initializer_range)
