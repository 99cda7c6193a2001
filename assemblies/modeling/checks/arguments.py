"""Validation of argument names, and of plain values such as numbers."""

import difflib
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast, get_args

import torch

from pairform.assemblies.specs.generation_names import UNSUPPORTED
from pairform.registry import InputError, Problem, shorten

F = TypeVar("F", bound=Callable[..., Any])
ELSEWHERE = {
    "use_cache": "Pass `cache=pairform.Cache()` to keep keys and values between calls.",
    "past_key_values": "Pass `cache=pairform.Cache()` to keep keys and values between calls.",
    "return_dict": "Outputs always have named fields.",
    "num_items_in_batch": "`loss_tokens` is the number that the summed loss is divided by.",
    "assistant_model": "The tokens are the same without it.",
    **{name: f"It is for {unsupported.why}." for name, unsupported in UNSUPPORTED.items()},
}
"""Arguments of transformers that this library does not have, with the replacement for each."""


def checked(check: Callable[[Any, Mapping[str, Any]], None]) -> Callable[[F], F]:
    """Decorator that checks the names of a method's arguments, then calls `check(self, given)`, then runs the method.

    `given` maps the name of each argument that is not None to its value. An unknown or surplus argument raises
    `InputError`. The method keeps its signature. Compiled and exported code contains no check.
    """

    def decorate(method: F) -> F:
        parameters = [*inspect.signature(method).parameters.values()][1:]
        names = []
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:  # Unpack[a TypedDict]
                names += get_args(parameter.annotation)[0].__annotations__
            else:
                names.append(parameter.name)
        known = frozenset(names)
        positional = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

        @wraps(method)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                for name in kwargs:
                    if name not in known:
                        raise InputError(unknown_argument(name, method.__name__, names))
                if len(args) > len(positional):
                    found = f"{len(args)} arguments without a name"
                    expected = f"at most {len(positional)}: {', '.join(positional)}"
                    raise InputError(Problem(method.__name__, found, expected, "Pass the others by name."))
                unnamed = dict(zip(positional, args, strict=False))
                if twice := unnamed.keys() & kwargs.keys():
                    raise InputError(Problem(min(twice), "the argument twice, with and without its name", "it once"))
                given = {name: value for name, value in (unnamed | kwargs).items() if value is not None}
                check(self, given)
            return method(self, *args, **kwargs)

        return cast(F, call)

    return decorate


def unknown_argument(name: str, method: str, names: list[str]) -> Problem:
    if name in ELSEWHERE:
        hint = ELSEWHERE[name]
    else:
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It takes {', '.join(names)}."
    return Problem(name[:80], f"an argument that {method} does not take", "one that it takes", hint)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int between the bounds. Anything else, including a bool, raises `InputError`."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        whole = None
    if whole is None or whole < least or (most is not None and whole > most):
        bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise InputError(Problem(name, described(value), f"a whole number {bounds}"))
    return whole


def number(name: str, value: Any, least: float, most: float, expected: str, remedy: str = "") -> float:
    """`value` as a float between the bounds. Anything else, including NaN and a bool, raises `InputError`."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most:
        raise InputError(Problem(name, described(value), expected, remedy))
    return float(value)


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(Problem(name, described(value), "True or False"))


def described(value: Any) -> str:
    """The repr of a plain value; for anything else its type, since a full repr could be long."""
    if value is None:
        return "nothing"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return shorten(value) if isinstance(value, numbers.Number | str | bytes) else f"a value of type {type(value).__name__}"
