"""Outlines of models, for the names and shapes of their parameters: of many equal modules, such as experts, they have one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

OUTLINED: ContextVar[bool] = ContextVar("outlined", default=False)


class Several(nn.ModuleList):
    """One module that stands for `count` of them."""

    count = 1


@contextmanager
def outline() -> Iterator[None]:
    """Models built in this block have one module for each call of `repeated`. They cannot run."""
    token = OUTLINED.set(True)
    try:
        yield
    finally:
        OUTLINED.reset(token)


def repeated(make: Callable[[], nn.Module], count: int) -> nn.ModuleList:
    """`count` modules from `make`, whose parameters have the same names, shapes and initial distributions."""
    if not OUTLINED.get():
        return nn.ModuleList(make() for _ in range(count))
    only = Several([make()])
    only.count = count
    return only


def named_modules(module: nn.Module, prefix: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """As `module.named_modules()`. In an outline, a module that stands for several comes under the name of each."""
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    yield prefix, module
    for name, child in module.named_children():
        if not isinstance(module, Several):
            yield from named_modules(child, f"{prefix}.{name}" if prefix else name, seen)
            continue
        inner = list(named_modules(child, "", seen))
        for number in range(module.count):
            yield from ((f"{prefix}.{number}.{path}".removesuffix("."), each) for path, each in inner)
