"""What may stand at each place of a document, as the specs' types say it."""

import functools
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from pairform.registry.registry import KINDS, find_block
from pairform.registry.spec import Slot

Spec = type[BaseModel]


class DocumentOf:
    """Marks a field whose object is a document of `spec`, held unvalidated: `Annotated[Patch, DocumentOf(ModelSpec)]`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec


@dataclass(frozen=True)
class Held:
    """What may stand at one place: a block of one of `kinds`, an object of one of `specs`, or an object under free keys whose
    every value is as `each` says. With none of them, a plain value.

    Where there are several to choose from, an object's `name` chooses.
    """

    kinds: tuple[str, ...] = ()
    specs: tuple[Spec, ...] = ()
    each: "Held | None" = None

    def knows(self, name: object) -> bool:
        """Whether `name` chooses one of several."""
        if self.kinds:
            return any(name in KINDS[kind] for kind in self.kinds)
        return len(self.specs) > 1 and any(name in names_of(spec) for spec in self.specs)

    def chosen(self, name: object) -> Spec | None:
        """The spec of an object with this `name`; None if there is no such spec."""
        if self.kinds and self.knows(name):
            spec: Spec = find_block(name, self.kinds).Spec
            return spec
        if len(self.specs) == 1:
            return self.specs[0]
        return next((spec for spec in self.specs if name in names_of(spec)), None)

    def inside(self, name: object, field: str) -> "Held":
        """What may stand at `field` of an object with this `name`."""
        if self.each is not None:
            return self.each
        spec = self.chosen(name)
        return NOTHING if spec is None else held_by(spec, field)


NOTHING = Held()


def names_of(spec: Spec) -> tuple[Any, ...]:
    """The values of `name` that choose `spec`."""
    return get_args(spec.model_fields["name"].annotation) if "name" in spec.model_fields else ()


def fields_of(spec: Spec) -> set[str]:
    """The fields of `spec` as documents name them."""
    return {info.alias or name for name, info in spec.model_fields.items()}


@functools.cache
def held_by(spec: Spec, field: str) -> Held:
    """What may stand at one field of `spec`."""
    for name, info in spec.model_fields.items():
        if (info.alias or name) == field:
            return held(info.annotation, info.metadata)
    return NOTHING


def held(annotation: Any, metadata: Iterable[Any] = ()) -> Held:
    """What a type allows. Lists hold nothing: a patch replaces them whole."""
    for mark in metadata:
        if isinstance(mark, Slot):
            return Held(kinds=mark.kinds)
        if isinstance(mark, DocumentOf):
            return Held(specs=(mark.spec,))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return held(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        return either([held(each) for each in inner])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Held(each=held(inner[1]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Held(specs=(annotation,))
    return NOTHING


def either(choices: Iterable[Held]) -> Held:
    """What a union of types allows."""
    kinds = tuple(kind for choice in choices for kind in choice.kinds)
    specs = tuple(spec for choice in choices for spec in choice.specs)
    return Held(kinds, specs, next((choice.each for choice in choices if choice.each is not None), None))
