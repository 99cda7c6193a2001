"""Facts about the machine, asked once, that compiled code takes as constants."""

from collections.abc import Callable
from functools import cache, wraps
from typing import TypeVar

Answer = TypeVar("Answer")


def constant(find: Callable[[str], Answer]) -> Callable[[str], Answer]:
    """`find`, called once for each device. The compiler takes its answer and does not follow it into a search for packages.

    As torch.compiler.assume_constant_result does, which imports the compiler.
    """
    found = cache(find)

    @wraps(find)
    def answer(device: str) -> Answer:
        return found(device)

    answer._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return answer
