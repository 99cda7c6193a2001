"""JSON Merge Patch (RFC 7386), the one way in which pairform changes a document."""

from collections.abc import Mapping
from typing import Any

from pairform.registry.errors import Problem, SpecError, shorten
from pairform.registry.json_values import DEEPEST, as_object, parse_json, too_deep
from pairform.registry.registry import KINDS


def merge_patch(document: Any, patch: Any) -> Any:
    """`document` with `patch` applied: objects merge, `null` removes, everything else replaces.

    Where a patch changes the `name` of a block, inherited fields that the new block does not have are left behind.
    """
    if not isinstance(patch, Mapping):
        return patch
    base = dict(document) if isinstance(document, Mapping) else {}
    base = _drop_foreign_fields(base, patch)
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merge_patch(base.get(key), value)
    return base


def _drop_foreign_fields(base: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    old, new = base.get("name"), patch.get("name")
    if not isinstance(old, str) or not isinstance(new, str) or old == new:
        return base
    holders = [registry for registry in KINDS.values() if new in registry]
    if not holders:
        return base  # the spec's validation will say that there is no such block
    same_kind = [registry for registry in holders if old in registry]
    fields = {field for registry in same_kind or holders for field in registry[new].Spec.model_fields}
    return {key: value for key, value in base.items() if key in fields}


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`["decoder.depth=4", ...]` as one merge patch. A value is read as JSON, or else as a string."""
    patch: dict[str, Any] = {}
    for setting in settings:
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
        node = patch
        for depth, key in enumerate(keys[:-1], start=1):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                expected = f"{'.'.join(keys[:depth])} not to be set to a value as well"
                raise SpecError(Problem("--set", shorten(setting), expected))
        node[keys[-1]] = value
    return as_object(patch, "--set")


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
