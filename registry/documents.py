"""Spec documents on disk: presets, files, and what they `extends`."""

import contextlib
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pairform.registry.errors import PATH, Problem, SpecError, shorten
from pairform.registry.files import read_text
from pairform.registry.merge import merge_patch

PRESETS = Path(__file__).resolve().parent / "presets"
PARTS = ("encoder", "decoder")
"""The stacks of a model document; each may itself extend another document's stack."""
DEEPEST = 64
"""How many objects and lists a document may nest: far above any spec, far below what would exhaust Python's stack."""


def presets() -> list[str]:
    """The names of the architectures that come with pairform."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Keys given twice and NaN, which `json` lets pass, are errors too."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} twice in one object")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name}, which JSON does not have")

    try:
        document = json.loads(read_text(path), object_pairs_hook=unique, parse_constant=constant)
    except FileNotFoundError:
        raise SpecError(Problem(str(path), "no such file", "a JSON file")) from None
    except OSError as error:
        raise SpecError(Problem(str(path), error.strerror or str(error), "a readable JSON file")) from None
    except ValueError as error:
        raise SpecError(Problem(str(path), str(error), "a JSON document")) from None
    except RecursionError:
        raise SpecError(too_deep(str(path))) from None
    return as_object(document, str(path))


def as_object(document: object, where: str = "") -> dict[str, Any]:
    """`document`, which must be a JSON object, and not one that is nested absurdly deep or holds itself."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        level = [item for value in level for item in inside(value)]
    if level:
        raise SpecError(too_deep(where))
    if not isinstance(document, Mapping):
        raise SpecError(Problem(where, shorten(document), "a JSON object"))
    return dict(document)


def inside(value: object) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def too_deep(where: str) -> Problem:
    return Problem(where, "JSON nested too deeply", f"at most {DEEPEST} levels")


def locate(ref: str, folder: Path) -> Path:
    """The file or folder that `ref` means: a preset's name, or a path relative to `folder`."""
    if ref in presets():
        return PRESETS / f"{ref}.json"
    path = folder / Path(ref).expanduser()
    with contextlib.suppress(OSError):  # a name that is too long, say
        if path.exists():
            return path
    near = difflib.get_close_matches(ref, presets(), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`pairform presets` lists the presets."
    raise SpecError(Problem(shorten(ref, PATH), "no preset, file or folder of that name", "one that exists", hint))


def resolve(document: Mapping[str, Any], folder: Path, chain: tuple[str, ...] = ()) -> dict[str, Any]:
    """`document` without any `extends`: each base read, resolved and patched. `folder` anchors relative paths."""
    own = as_object(document)
    ref = own.pop("extends", None)
    base = {} if ref is None else _extended(ref, folder, chain, part=None)
    return apply_patch(base, own, folder, chain)


def apply_patch(
    document: Mapping[str, Any], patch: Mapping[str, Any], folder: Path, chain: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`document` with a merge patch applied. A stack in the patch that names its own base replaces the document's."""
    document, patch = dict(document), as_object(patch, "patch")
    for part in PARTS:
        stack = patch.get(part)
        if isinstance(stack, Mapping) and "extends" in stack:
            patch[part] = resolve_stack(stack, part, folder, chain)
            document.pop(part, None)
    merged: dict[str, Any] = merge_patch(document, patch)
    return merged


def resolve_stack(stack: Mapping[str, Any], part: str, folder: Path, chain: tuple[str, ...]) -> dict[str, Any]:
    """A stack document without `extends`. Of a model document it takes the stack of the same part, or the only one."""
    own = dict(stack)
    base = _extended(own.pop("extends"), folder, chain, part=part)
    merged: dict[str, Any] = merge_patch(base, own)
    return merged


def _extended(ref: object, folder: Path, chain: tuple[str, ...], part: str | None) -> dict[str, Any]:
    where = f"{part}.extends" if part else "extends"
    if not isinstance(ref, str):
        raise SpecError(Problem(where, shorten(ref), "the name of a preset or a path, as a string"))
    name, _, fragment = ref.partition("#")
    try:
        path = locate(name, folder)
    except SpecError as error:
        raise SpecError([problem.inside(where) for problem in error.problems]) from None
    step = f"{path}#{fragment or part or ''}"
    if step in chain:
        raise SpecError(Problem(where, " -> ".join([*chain, step]), "a chain that ends", "A document extends itself."))
    if path.is_dir():
        if not (path / "spec.json").is_file():
            remedy = "`pairform show DIR --json > FILE` writes the spec of transformers' folders as one."
            raise SpecError(Problem(where, f"{ref!r}, a folder without spec.json", "a folder of pairform's, or a file", remedy))
        path = path / "spec.json"
    document = read_json(path)
    if not _is_model(document):
        if part is None and not fragment:
            return resolve(document, path.parent, (*chain, step))
        if "extends" in document:
            return resolve_stack(document, fragment or part or "", path.parent, (*chain, step))
        return document
    model = resolve(document, path.parent, (*chain, step))
    if part is None and not fragment:
        return model
    return _pick_stack(model, fragment, part, where, ref)


def _is_model(document: Mapping[str, Any]) -> bool:
    return "assembly" in document or any(part in document for part in PARTS)


def _pick_stack(model: Mapping[str, Any], fragment: str, part: str | None, where: str, ref: str) -> dict[str, Any]:
    stacks = {name: model[name] for name in PARTS if isinstance(model.get(name), dict)}
    if fragment:
        if fragment not in stacks:
            raise SpecError(Problem(where, repr(ref), f"one of {', '.join(f'#{name}' for name in stacks)} after the name"))
        return stacks[fragment]
    if part in stacks:
        return stacks[part]
    if len(stacks) == 1:
        return next(iter(stacks.values()))
    raise SpecError(Problem(where, repr(ref), "a document with a stack to extend"))
