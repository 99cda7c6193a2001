"""JSON Merge Patch (RFC 7386), the one way in which pairform changes a document."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pairform.registry.errors import Problem, SpecError, join_path, shorten
from pairform.registry.held import NOTHING, Held, fields_of
from pairform.registry.json_values import DEEPEST, as_object, parse_json, too_deep


def merge_patch(document: Any, patch: Any, spec: type[BaseModel] | None = None) -> Any:
    """`document` with `patch` applied: objects merge, `null` removes, everything else replaces.

    spec: of what the document describes. Where it says that one of several blocks (or of other objects that a `name` chooses)
          stands, and the patch changes that name, fields that the newly chosen one does not have are left behind. Without a
          spec, a `name` is a field as any other.
    """
    return merged(document, patch, NOTHING if spec is None else Held(specs=(spec,)))


def merged(document: Any, patch: Any, held: Held) -> Any:
    """`document` with `patch` applied, where `held` may stand."""
    if not isinstance(patch, Mapping):
        return patch
    base = dict(document) if isinstance(document, Mapping) else {}
    old = base.get("name")
    new = patch.get("name", old)
    if isinstance(old, str) and old != new and held.knows(new):
        chosen = held.chosen(new)
        fields = set() if chosen is None else fields_of(chosen)
        base = {key: value for key, value in base.items() if key in fields}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            inside = held.inside(new, key) if isinstance(value, Mapping) else NOTHING
            base[key] = merged(base.get(key), value, inside)
    return base


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`["decoder.depth=4", ...]` as one merge patch, the same in any order. A value is read as JSON, or else as a string."""
    patch: dict[str, Any] = {}
    for setting in settings:
        patch = joined(patch, parse_setting(setting))
    return as_object(patch, "--set")


def parse_setting(setting: str) -> dict[str, Any]:
    """One setting as a merge patch."""
    path, equals, text = setting.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise SpecError(Problem("--set", shorten(setting), "path=value, as in decoder.depth=4"))
    if len(keys) > DEEPEST:
        raise SpecError(too_deep("--set"))
    try:
        value = parse_json(text)
    except RecursionError:
        raise SpecError(too_deep("--set")) from None
    except ValueError:
        value = text
    for key in reversed(keys):
        value = {key: value}
    return as_object(value, "--set")


def joined(one: Any, other: Any, path: str = "") -> Any:
    """Two settings as one patch: objects are joined; two values for one path are an error, since either could count."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = dict(one)
        for key, value in other.items():
            found[key] = joined(one[key], value, join_path(path, key)) if key in one else value
        return found
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        raise SpecError(Problem("--set", f"{path} set to {shorten(one)} and to {shorten(other)}", "one value for each path"))
    return one


def difference(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two documents differ: JSON path -> (old value, new value); an absent side is None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            found |= difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    if comparable_lists(old, new):
        found = {}
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            found |= difference(left, right, f"{path}[{index}]")
        return found
    return {} if old == new else {path: (old, new)}


def comparable_lists(old: Any, new: Any) -> bool:
    """Lists of as many objects each, as layers are: to be compared one by one."""
    lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    return lists and all(isinstance(item, Mapping) for item in [*old, *new])
