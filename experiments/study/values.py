"""Paths in a study with a list of values each, as in its grid."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Strict

from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, shorten, thaw
from pairform.registry.validation import initials
from pairform.training.settings import OptimizerSpec, TrainingSpec

Values = dict[str, Annotated[tuple[Any, ...], Strict(False)]]
"""Values by path."""
DEEPEST = 64
"""Largest number of fields in a path."""


def check_values(field: str, path: str, values: tuple[Any, ...]) -> Iterator[Problem]:
    """What is wrong with the values of a path, in the field `field` of the study."""
    parts = path.split(".")
    if not all(parts) or len(parts) > DEEPEST:
        yield Problem(field, shorten(path), "a path in the spec, as in decoder.depth")
    if not values:
        yield Problem(f"{field}.{path}", "no value", "at least one", "Remove the path to keep the base's value.")
    if belongs := misplaced(parts[0]):
        yield Problem(f"{field}.{path}", "a setting of `training` in a path that does not begin with it", belongs)
    first_index: dict[str, int] = {}
    for index, value in enumerate(values):
        first = first_index.setdefault(comparable(value), first_index.setdefault(str(value), index))
        if first < index:
            found = f"{shorten(thaw(value))}, equal to or written like the value at [{first}]"
            yield Problem(f"{field}.{path}[{index}]", found, "each value once")


def misplaced(name: str) -> str:
    """The path in the study of a setting of `training` that stands where a field of the model does; else an empty string."""
    places = {name: f"training.{name}" for name in TrainingSpec.model_fields}
    places |= {name: f"training.optimizer.{name}" for name in OptimizerSpec.model_fields if name != "name"}
    places |= {initials(field): place for field, place in places.items() if initials(field) not in places}
    return "" if name in ModelSpec.model_fields else places.get(name, "")


def comparable(value: Any) -> str:
    """Equal strings for values that are equal in JSON, such as 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {comparable(item)}' for key, item in sorted(value.items()))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(comparable, value))}]"
    return repr(value)
