"""Registries: from names in JSON to the block classes that they build."""

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar

from pairform.registry.errors import Problem, SpecError, shorten, suggest

ENTRY_POINTS = "pairform.blocks"
"""Entry-point group through which other packages add blocks; an entry is named `kind.name`."""


class BlockClass(Protocol):
    """A registered block: an `nn.Module` class whose constructor takes `(spec, sizes)`, with its `Spec`."""

    Spec: Any
    __doc__: str | None

    def __call__(self, spec: Any, sizes: Any) -> Any: ...


B = TypeVar("B", bound=type)


class Registry(Mapping[str, Any]):
    """The blocks of one kind by name. A class given as `"module:Class"` is imported when it is first used."""

    def __init__(self, kind: str, summary: str) -> None:
        self.kind = kind
        self.summary = summary
        self._blocks: dict[str, Any] = {}
        self._plugins_of: tuple[str, ...] | None = None

    def add(self, name: str, block: Any) -> None:
        """Register `block`, a class or `"module:Class"`. `SpecError` names both files if the name is taken."""
        if isinstance(block, str):
            block = EntryPoint(f"{self.kind}.{name}", block, ENTRY_POINTS)
        known = self._blocks.get(name)
        if known is not None and identity(known) != identity(block):
            raise SpecError(
                Problem(
                    f"{self.kind}.{name}",
                    f"a second block of this name in {location(block)}",
                    f"one: {location(known)} registered it first",
                    "Choose another name.",
                )
            )
        self._blocks.setdefault(name, block)

    def __getitem__(self, name: str) -> Any:
        self._read_plugins()
        if name not in self._blocks:
            raise SpecError(Problem("name", shorten(name), f"one of {self.kind}: {', '.join(self)}", suggest(name, self)))
        block = self._blocks[name]
        if isinstance(block, EntryPoint):
            block = self._blocks[name] = self._load(block)
        return block

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return isinstance(name, str) and name in self._blocks

    def __iter__(self) -> Iterator[str]:
        self._read_plugins()
        return iter(sorted(self._blocks))

    def __len__(self) -> int:
        self._read_plugins()
        return len(self._blocks)

    def _read_plugins(self) -> None:
        path = tuple(sys.path)
        if self._plugins_of == path:
            return
        self._plugins_of = path
        for entry in plugins(path):
            kind, _, name = entry.name.partition(".")
            if kind == self.kind:
                self.add(name, entry)

    def _load(self, entry: EntryPoint) -> Any:
        try:
            return entry.load()
        except Exception as error:
            raise SpecError(
                Problem(
                    entry.name,
                    f"{type(error).__name__} while importing {entry.value}: {error}",
                    "a block that can be imported",
                    "Fix or uninstall the package that registers it.",
                )
            ) from error


@functools.cache
def plugins(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the packages on `path`, which is `sys.path`, found once for all kinds."""
    return tuple(entry_points(group=ENTRY_POINTS))


KINDS: Mapping[str, Registry] = {
    registry.kind: registry
    for registry in (
        Registry("norm", "normalises hidden states along the width"),
        Registry("residual", "combines the output of a branch with its input"),
        Registry("position", "encodes the positions of queries and keys in attention"),
        Registry("absolute_position", "adds positions to the embeddings, before the first layer"),
        Registry("attention", "a residual branch in which tokens read others"),
        Registry("feed_forward", "a residual branch that processes each token separately"),
        Registry("embedding", "maps token ids or pictures to hidden states"),
        Registry("projector", "maps a vision tower's output to embeddings of image tokens"),
        Registry("bridge", "maps the encoder's output for a decoder of another width"),
        Registry("head", "maps the last hidden states to the model's output"),
    )
}


def register(kind: str) -> Callable[[B], B]:
    """Class decorator that registers a block of `kind` under the `name` that its `Spec` declares.

    Raises:
        SpecError: the kind is unknown, the decorated object is not a class with such a `Spec`, or the name is taken.
    """
    registry = registry_of(kind)

    def add(block: B) -> B:
        registry.add(declared_name(block), block)
        return block

    return add


def declared_name(block: object) -> str:
    """The name that a block class declares: `class Spec(BlockSpec): name: Literal["mine"] = "mine"`."""
    if not inspect.isclass(block):
        raise SpecError(Problem("register", shorten(block), "a class: an nn.Module with its Spec inside"))
    where = block.__qualname__
    fields = getattr(getattr(block, "Spec", None), "model_fields", None)
    if not isinstance(fields, Mapping):
        raise SpecError(Problem(where, "a class without a Spec", "`class Spec(BlockSpec)` inside it"))
    name = fields["name"].default if "name" in fields else None
    if not isinstance(name, str) or not name:
        raise SpecError(Problem(f"{where}.Spec", "no default for name", '`name: Literal["..."] = "..."`, the name in JSON'))
    return name


def registry_of(kind: str) -> Registry:
    """The registry of `kind`; `SpecError` lists the known kinds if there is none."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise SpecError(Problem("kind", shorten(kind), f"one of {', '.join(KINDS)}", suggest(kind, KINDS)))
    return KINDS[kind]


def find_block(name: object, kinds: tuple[str, ...]) -> Any:
    """The class registered as `name` in the first of `kinds` that has it; `SpecError` if none does."""
    for kind in kinds:
        if isinstance(name, str) and name in KINDS[kind]:
            return KINDS[kind][name]
    known = [known for kind in kinds for known in KINDS[kind]]
    if name is None:
        raise SpecError(Problem("name", "nothing", f"one of {', '.join(known)}"))
    hint = suggest(name, known) or "`pairform blocks` lists them all."
    raise SpecError(Problem("name", shorten(name), f"the name of a block of kind {' or '.join(kinds)}", hint))


def build_block(spec: Any, sizes: Any, *kinds: str) -> Any:
    """Build the module that `spec` names.

    Returns:
        The module: an instance of the class that is registered under the spec's `name`.
    """
    return find_block(spec.name, kinds)(spec, sizes)


def identity(block: Any) -> str:
    """`module:Class`, however the block was registered."""
    return block.value if isinstance(block, EntryPoint) else f"{block.__module__}:{block.__qualname__}"


def location(block: Any) -> str:
    """The file that holds a block."""
    if not isinstance(block, EntryPoint):
        try:
            return inspect.getfile(block)
        except (OSError, TypeError):
            return identity(block)
    module = identity(block).partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    return found.origin if found and found.origin else identity(block)
