"""The part of a checkpoint that is no tensor: `state.json`, in which references stand for tensors."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pairform.registry import CheckpointError, InputError, Problem, SpecError, read_json, shorten
from pairform.training.checkpoints.metadata import REMEDY, length_of

STATE = "state.json"
STATE_BYTES = 1 << 28
"""Largest state.json that is read."""
REFERENCE = "$tensor"
"""The only key of the object that stands for a tensor in state.json."""


def read_state(path: Path, step: int) -> dict[str, Any]:
    """The document in `state.json`, after a look at the files that it lists.

    Raises:
        CheckpointError: it cannot be read, is of another step, or a file is missing or has another length.
    """
    try:
        document = read_json(path / STATE, STATE_BYTES)
    except SpecError as error:
        raise CheckpointError([replace(problem, remedy=REMEDY) for problem in error.problems]) from None
    files, groups = document.get("files"), document.get("groups")
    plain = isinstance(groups, list) and all(
        isinstance(each, list) and all(isinstance(g, dict) for g in each) for each in groups
    )
    if document.get("step") != step or not isinstance(files, dict) or not isinstance(document.get("state"), dict) or not plain:
        raise CheckpointError(Problem(str(path / STATE), "other fields", f"the state after step {step}", REMEDY))
    for name, size in files.items():
        try:
            found = f"{length_of(path, name):,} bytes"
            same = length_of(path, name) == size
        except (OSError, ValueError) as error:
            found, same = getattr(error, "strerror", None) or str(error), False
        if not same:
            raise CheckpointError(Problem(f"{path}: {shorten(name)}", found, f"a file of {shorten(size)} bytes", REMEDY))
    return document


def packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON. Its tensors are added to `tensors`, by their place."""
    if isinstance(value, Tensor):
        tensors[place] = value.detach()
        return {REFERENCE: place}
    if isinstance(value, Mapping):
        if REFERENCE in value or not all(isinstance(key, str) for key in value):
            raise InputError(Problem(place, "an object with other keys", f"keys that are strings and not {REFERENCE!r}"))
        return {key: packed(item, f"{place}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [packed(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    found = str(value) if isinstance(value, float) else f"a {type(value).__name__}"
    raise InputError(Problem(place, found, "JSON or a tensor"))


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `packed`, with lists for tuples."""
    if isinstance(value, dict):
        if REFERENCE in value:
            return tensors[value[REFERENCE]]
        return {key: unpacked(item, tensors) for key, item in value.items()}
    return [unpacked(item, tensors) for item in value] if isinstance(value, list) else value


def references(value: Any) -> Iterator[str]:
    """The names of the tensors that a packed value refers to."""
    if isinstance(value, dict) and REFERENCE in value:
        yield str(value[REFERENCE])
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references(item)
