"""JSON Merge Patch (RFC 7386), the one way in which pairform changes a document.

Patches know the specs: `Content` says what a place of a document may contain, so that a patch which swaps a block drops the
fields that the new one does not have.
"""

import functools
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from pairform.registry.errors import Problem, SpecError, join_path, shorten
from pairform.registry.json_values import DEEPEST, as_object, parse_json, too_deep
from pairform.registry.registry import KINDS, find_block
from pairform.registry.spec import Slot


class DocumentOf:
    """Marks a field whose object is an unvalidated document of `spec`: `Annotated[Patch, DocumentOf(ModelSpec)]`."""

    def __init__(self, spec: type[BaseModel]) -> None:
        self.spec = spec


@dataclass(frozen=True)
class Content:
    """What a place of a document may contain: a block of one of `kinds`, an object of one of `specs`, or an object with any
    keys whose values are as in `each`. If all are empty, a plain value.

    An object's `name` selects one of several blocks or specs.
    """

    kinds: tuple[str, ...] = ()
    specs: tuple[type[BaseModel], ...] = ()
    each: "Content | None" = None

    def selects(self, name: object) -> bool:
        """Whether `name` selects one of several."""
        if self.kinds:
            return any(name in KINDS[kind] for kind in self.kinds)
        return len(self.specs) > 1 and any(name in names_of(spec) for spec in self.specs)

    def spec_named(self, name: object) -> type[BaseModel] | None:
        """The spec of an object with this `name`; None if there is no such spec."""
        if self.kinds and self.selects(name):
            return find_block(name, self.kinds).Spec
        if len(self.specs) == 1:
            return self.specs[0]
        return next((spec for spec in self.specs if name in names_of(spec)), None)

    def of_field(self, name: object, field: str) -> "Content":
        """The content of `field` in an object with this `name`."""
        if self.each is not None:
            return self.each
        spec = self.spec_named(name)
        return PLAIN if spec is None else content_of_field(spec, field)


PLAIN = Content()


def names_of(spec: type[BaseModel]) -> tuple[Any, ...]:
    """The values of `name` that select `spec`."""
    return get_args(spec.model_fields["name"].annotation) if "name" in spec.model_fields else ()


def fields_of(spec: type[BaseModel]) -> set[str]:
    """The fields of `spec` as documents name them."""
    return {info.alias or name for name, info in spec.model_fields.items()}


@functools.cache
def content_of_field(spec: type[BaseModel], field: str) -> Content:
    """The content of a field of `spec`."""
    for name, info in spec.model_fields.items():
        if (info.alias or name) == field:
            return content_of(info.annotation, info.metadata)
    return PLAIN


def content_of(annotation: Any, metadata: Iterable[Any] = ()) -> Content:
    """The content that a type allows. A list is a plain value: a patch replaces it whole."""
    for mark in metadata:
        if isinstance(mark, Slot):
            return Content(kinds=mark.kinds)
        if isinstance(mark, DocumentOf):
            return Content(specs=(mark.spec,))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return content_of(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        return either([content_of(each) for each in inner])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Content(each=content_of(inner[1]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Content(specs=(annotation,))
    return PLAIN


def either(choices: Iterable[Content]) -> Content:
    """The content that a union of types allows."""
    kinds = tuple(kind for choice in choices for kind in choice.kinds)
    specs = tuple(spec for choice in choices for spec in choice.specs)
    return Content(kinds, specs, next((choice.each for choice in choices if choice.each is not None), None))


def merge_patch(document: Any, patch: Any, spec: type[BaseModel] | None = None) -> Any:
    """Apply a merge patch: objects merge, `null` removes, everything else replaces.

    Args:
        document: The document; it is not changed.
        patch: The patch.
        spec: The document's spec. A patch that changes the `name` of a block, or of another object that a `name` selects, then
            drops the fields that the newly selected one does not have. Without a spec, `name` is an ordinary field.

    Returns:
        The patched document.
    """
    return merged(document, patch, PLAIN if spec is None else Content(specs=(spec,)))


def merged(document: Any, patch: Any, content: Content) -> Any:
    """`document` with `patch` applied, at a place of that `content`."""
    if not isinstance(patch, Mapping):
        return patch
    base = dict(document) if isinstance(document, Mapping) else {}
    old = base.get("name")
    new = patch.get("name", old)
    if isinstance(old, str) and old != new and content.selects(new):
        # another block or spec is chosen: only its fields are kept
        chosen = content.spec_named(new)
        fields = set() if chosen is None else fields_of(chosen)
        base = {key: value for key, value in base.items() if key in fields}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            inside = content.of_field(new, key) if isinstance(value, Mapping) else PLAIN
            base[key] = merged(base.get(key), value, inside)
    return base


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`["decoder.depth=4", ...]` as one merge patch, independent of the order. A value that is not JSON is a string.

    Raises:
        SpecError: a setting is not path=value, or two set the same path to different values.
    """
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
    return as_object(patch_at(path, value), "--set")


def patch_at(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for `a.b`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def joined(one: Any, other: Any, path: str = "") -> Any:
    """Two settings as one patch; `SpecError` for two values of one path."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = dict(one)
        for key, value in other.items():
            found[key] = joined(one[key], value, join_path(path, key)) if key in one else value
        return found
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        raise SpecError(Problem("--set", f"{path} set to {shorten(one)} and to {shorten(other)}", "one value for each path"))
    return one


def difference(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Differences of two documents: JSON path -> (old value, new value); None if absent."""
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
    """Whether both are lists of equally many objects, such as layers, to be compared one by one."""
    lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    return lists and all(isinstance(item, Mapping) for item in [*old, *new])
