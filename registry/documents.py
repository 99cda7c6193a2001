"""Spec documents: where they are, and what they extend, resolved within a bound on how much is read."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pairform.registry.errors import PATH, Problem, SpecError, shorten, suggest
from pairform.registry.json_values import as_object, read_json
from pairform.registry.merge import Content, merged

PRESETS = Path(__file__).resolve().parent / "presets"
PRESET_SIZES = Path(__file__).resolve().parent / "preset_sizes.json"
"""Made by `make schema`; a test compares it with the presets."""
PARTS = ("encoder", "decoder")
"""The stacks of a model document. Each may extend another document's stack."""
DOCUMENTS = 64
"""Number of documents that one may extend, directly or indirectly."""
SPEC_BYTES = 4 << 20
"""Limit of a spec's document, and of all that it extends together. A thousand layers written out take about two MB."""
SPEC = "spec.json"
"""The document in a model's folder."""


def presets() -> list[str]:
    """Names of the architectures that come with pairform."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def expanded(name: str) -> dict[str, Any]:
    """A preset's expanded form, `load_spec(name).document()`, from a committed file: no block is imported."""
    return read_json(PRESETS / "expanded" / f"{name}.json")


def preset_sizes() -> dict[str, dict[str, Any]]:
    """Of each preset its `parameters`, and of each stack (`encoder`, `decoder`) its `depth` in layers and its `width`.

    Read from a committed table, since counting parameters needs torch and listing presets should not.
    """
    return read_json(PRESET_SIZES)


def locate(ref: str, folder: Path) -> Path:
    """The file or folder that `ref` names: a preset, or a path relative to `folder`. `SpecError` if there is none."""
    if not ref:  # Python would take it for the current folder
        raise SpecError(Problem("", "an empty name", "a preset's name, or the path of a file or folder"))
    if ref in presets():
        return PRESETS / f"{ref}.json"
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # the name is too long, of an unknown user, or has a null byte
        path = folder / Path(ref).expanduser()
        if path.exists():
            return path
    hint = suggest(ref, presets(), str) or "`pairform presets` lists the presets."
    raise SpecError(Problem(shorten(ref, PATH), "no preset, file or folder of that name", "one that exists", hint))


def resolve(spec: type[BaseModel], document: Mapping[str, Any], folder: Path, *, confined: bool = False) -> dict[str, Any]:
    """Resolve every `extends` of a model document: each base is read, resolved and patched.

    Args:
        spec: The spec of models.
        document: The document.
        folder: Folder to which paths are relative.
        confined: The document is part of a model's folder, which may be untrusted: it may extend only presets and files in that
            folder.

    Returns:
        The document without `extends`.

    Raises:
        SpecError: a base is missing, invalid, outside the folder, or extends itself; or the limits are exceeded.
    """
    return Resolution(spec).model(as_object(document), Place(folder, folder.resolve() if confined else None))


def apply_patch(spec: type[BaseModel], document: Mapping[str, Any], patch: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Apply a merge patch to a model document. A stack in the patch with an `extends` of its own replaces the document's.

    Args and errors are those of `resolve`.

    Returns:
        The patched document, without `extends`.
    """
    return Resolution(spec).patched(document, as_object(patch, "patch"), Place(folder, None))


class Place(NamedTuple):
    """Where a document is. root: the folder that it is confined to, if any."""

    folder: Path
    root: Path | None


class Resolution:
    """Resolution of one document. Each base is read and resolved once."""

    def __init__(self, spec: type[BaseModel]) -> None:
        self.content = Content(specs=(spec,))  # of models
        self.resolved: dict[tuple[Path, str, str, Path | None], dict[str, Any]] = {}
        self.files: dict[Path, dict[str, Any]] = {}
        self.bytes_left = SPEC_BYTES
        self.chain: list[str] = []

    def model(self, document: Mapping[str, Any], place: Place) -> dict[str, Any]:
        own = dict(document)
        ref = own.pop("extends", None)
        return self.patched({} if ref is None else self.base(ref, place), own, place)

    def patched(self, document: Mapping[str, Any], patch: Mapping[str, Any], place: Place) -> dict[str, Any]:
        document, patch = dict(document), dict(patch)
        for part in PARTS:
            stack = patch.get(part)
            if isinstance(stack, Mapping) and "extends" in stack:
                patch[part] = self.stack(stack, part, place)
                document.pop(part, None)
        return merged(document, patch, self.content)

    def stack(self, stack: Mapping[str, Any], part: str, place: Place) -> dict[str, Any]:
        """A stack document, resolved. If its base is a model, it extends the stack of the same part, or the only one."""
        own = dict(stack)
        base = self.base(own.pop("extends"), place, part)
        # both stacks have the same spec
        return merged(base, own, self.content.of_field(None, PARTS[0]))

    def base(self, ref: object, place: Place, part: str = "") -> dict[str, Any]:
        """The document that `ref` names, resolved: a model, or a stack if a part extends it."""
        where = f"{part}.extends" if part else "extends"
        if not isinstance(ref, str):
            raise SpecError(Problem(where, shorten(ref), "the name of a preset or a path, as a string"))
        name, _, fragment = ref.partition("#")
        file, inside = find(name, place, where)
        key = (file, fragment, part, inside.root)
        step = f"{file}#{fragment or part}"
        if step in self.chain:
            raise SpecError(Problem(where, " -> ".join([*self.chain, step]), "a chain that ends", "A document extends itself."))
        if key not in self.resolved:
            self.chain.append(step)
            self.resolved[key] = self.select(self.document(file, where), ref, fragment, part, inside)
            self.chain.pop()
        return self.resolved[key]

    def select(self, document: Mapping[str, Any], ref: str, fragment: str, part: str, place: Place) -> dict[str, Any]:
        """The requested model or stack of a document, resolved."""
        if "assembly" in document or any(name in document for name in PARTS):
            model = self.model(document, place)
            return pick_stack(model, ref, fragment, part) if fragment or part else model
        if not fragment and not part:
            return self.model(document, place)
        return self.stack(document, fragment or part, place) if "extends" in document else dict(document)

    def document(self, file: Path, where: str) -> dict[str, Any]:
        """The document in a file, read once."""
        if file not in self.files:
            if len(self.files) == DOCUMENTS:
                raise SpecError(Problem(where, f"more than {DOCUMENTS} documents", f"at most {DOCUMENTS} that one extends"))
            self.files[file] = as_object(read_json(file, SPEC_BYTES), str(file))
            self.bytes_left -= file.stat().st_size
            if self.bytes_left < 0:
                raise SpecError(Problem(where, "documents that are too large", f"at most {SPEC_BYTES:,} bytes in all of them"))
        return self.files[file]


def find(name: str, place: Place, where: str) -> tuple[Path, Place]:
    """The file that `name` refers to, and the place of the documents that it extends."""
    try:
        path = locate(name, place.folder)
    except SpecError as error:
        raise SpecError([problem.inside(where) for problem in error.problems]) from None
    real = path.resolve()
    if real.parent == PRESETS:
        return real, Place(PRESETS, place.root)
    if place.root is not None and not real.is_relative_to(place.root):
        remedy = "Only a document that you name yourself may extend files elsewhere: write one that extends both."
        raise SpecError(Problem(where, shorten(name, PATH), f"a preset, or a file in the model's folder {place.root}", remedy))
    if not path.is_dir():
        return real, Place(path.parent, place.root)
    if not (path / SPEC).is_file():
        remedy = "`pairform show DIR --json > FILE` writes the spec of transformers' folders as one."
        raise SpecError(
            Problem(where, f"{shorten(name, PATH)}, a folder without {SPEC}", "a folder of pairform's, or a file", remedy)
        )
    return (path / SPEC).resolve(), Place(path, real)


def pick_stack(model: Mapping[str, Any], ref: str, fragment: str, part: str) -> dict[str, Any]:
    """The stack that `#name` after the reference selects, else the one of the same part, else the only one."""
    where = f"{part}.extends" if part else "extends"
    stacks = {name: model[name] for name in PARTS if isinstance(model.get(name), dict)}
    if fragment:
        if fragment not in stacks:
            raise SpecError(Problem(where, shorten(ref), f"one of {', '.join(f'#{name}' for name in stacks)} after the name"))
        return stacks[fragment]
    if part in stacks:
        return stacks[part]
    if len(stacks) == 1:
        return next(iter(stacks.values()))
    raise SpecError(Problem(where, shorten(ref), "a document with a stack to extend"))
