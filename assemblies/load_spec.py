"""From a reference (preset, path, document) to a validated spec; patches and differences of specs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pairform.assemblies.specs import ModelSpec
from pairform.registry import PairformError, Problem, SpecError, difference, locate, merge_patch, read_json, resolve, shorten


def load_spec(ref: str | Path | Mapping[str, Any] | ModelSpec, patch: Mapping[str, Any] | None = None) -> ModelSpec:
    """The spec that `ref` means: a preset's name, a JSON file, a folder of a saved model, or a document.

    `patch`, a JSON merge patch, is applied before validation. Errors are `SpecError`s that name file and JSON path.
    """
    if isinstance(ref, ModelSpec):
        return ref if patch is None else patch_spec(ref, patch)
    if isinstance(ref, Mapping):
        document, name = resolve(ref, Path()), ""
    elif isinstance(ref, str | Path):
        path = locate(str(ref), Path())
        name = str(ref)
        try:
            document = resolve(read_json(path), path.parent)
        except SpecError as error:
            raise named(error, name) from None
    else:
        raise SpecError(Problem("", shorten(ref), "a preset's name, a path or a document"))
    try:
        return ModelSpec.read(merge_patch(document, patch or {}))
    except SpecError as error:
        raise named(error, name) from None


def patch_spec(spec: ModelSpec, patch: Mapping[str, Any]) -> ModelSpec:
    """`spec` with a JSON merge patch (RFC 7386) applied. A part may name a base to extend, as in a document."""
    return ModelSpec.read(merge_patch(spec.document(), resolve(patch, Path())))


def diff(old: ModelSpec, new: ModelSpec) -> dict[str, tuple[Any, Any]]:
    """JSON path -> (old value, new value) wherever two specs' expanded forms differ; None stands for absent."""
    return difference(old.document(), new.document())


def named(error: PairformError, file: str) -> SpecError:
    """The same error, each problem prefixed by the file it is in."""
    prefix = f"{file}: " if file else ""
    return SpecError([Problem(prefix + problem.where, problem.found, problem.expected, problem.remedy) for problem in error.problems])
