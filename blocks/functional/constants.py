"""Properties of a device, looked up once, that compiled code treats as constants."""

from collections.abc import Callable
from functools import cache, wraps
from typing import TypeVar

T = TypeVar("T")


def constant(lookup: Callable[[str], T]) -> Callable[[str], T]:
    """Decorator: call `lookup` once for each device. The compiler uses the result and does not trace the search for packages.

    Like torch.compiler.assume_constant_result, but without importing the compiler.
    """
    cached = cache(lookup)

    @wraps(lookup)
    def constant_lookup(device: str) -> T:
        return cached(device)

    constant_lookup._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return constant_lookup
