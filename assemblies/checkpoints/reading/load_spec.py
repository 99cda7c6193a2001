"""From a reference (preset, path, folder, document) to a validated spec; patches and differences of specs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pairform.assemblies.checkpoints.reading.own_tables import with_own_tables
from pairform.assemblies.families import family_of_config
from pairform.assemblies.families.generation import GENERATION, with_tokens
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import (
    SPEC_BYTES,
    CheckpointError,
    PairformError,
    Problem,
    SpecError,
    apply_patch,
    difference,
    locate,
    read_json,
    resolve,
    shorten,
)

SPEC = "spec.json"
CONFIG = "config.json"
OURS = "pairform"


Ref: TypeAlias = str | Path | Mapping[str, Any] | ModelSpec
"""A preset's name, a path, a document, or a spec: what every function takes that reads one."""


def load_spec(ref: Ref, patch: Mapping[str, Any] | None = None) -> ModelSpec:
    """The spec that `ref` means: a preset's name, a JSON file, a model's folder (ours or transformers'), or a document.

    `patch`, a JSON merge patch, is applied before validation. Errors are `PairformError`s that name file and JSON path.
    """
    if isinstance(ref, ModelSpec):
        return ref if patch is None else patch_spec(ref, patch)
    if isinstance(ref, Mapping):
        return read_document(ref, Path(), "", patch)
    if not isinstance(ref, str | Path):
        raise SpecError(Problem("", shorten(ref), "a preset's name, a path or a document"))
    path = locate(str(ref), Path())
    if path.is_dir():
        _, spec = spec_of_folder(path)
        return load_spec(spec, patch)
    return read_document(read_json(path, SPEC_BYTES), path.parent, str(ref), patch)


def read_document(
    document: Mapping[str, Any], folder: Path, name: str, patch: Mapping[str, Any] | None, *, confined: bool = False
) -> ModelSpec:
    """Resolve, patch and validate; problems are named after the file they are in. confined: as for `resolve`."""
    try:
        resolved = resolve(ModelSpec, document, folder, confined=confined)
        return ModelSpec.read(resolved if patch is None else apply_patch(ModelSpec, resolved, patch, Path()))
    except SpecError as error:
        raise SpecError(in_file(name, error)) from None


def spec_of_folder(folder: Path) -> tuple[str, ModelSpec]:
    """The format of a model's folder ("pairform" or a family) and its spec."""
    if (folder / SPEC).exists():
        document = read_json(folder / SPEC, SPEC_BYTES)
        return OURS, read_document(document, folder, str(folder / SPEC), None, confined=True)
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(Problem(str(path), "no such file", f"a model's folder: {SPEC} or {CONFIG}"))
    with of_file(path):
        config = read_json(path)
        family = family_of_config(config)
        spec = family.spec(config)
    spec = with_own_tables(spec, family, folder)
    settings = folder / GENERATION
    if settings.exists():
        with of_file(settings):
            spec = with_tokens(spec, read_json(settings))
    return family.model_type, spec


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """What goes wrong while a file of transformers' is read as a spec is the file's fault."""
    try:
        yield
    except PairformError as error:
        raise CheckpointError(in_file(str(path), error)) from None
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        found = f"{type(error).__name__}: {error}"
        raise CheckpointError(Problem(str(path), found, "a configuration as transformers writes it")) from None


def patch_spec(spec: Ref, patch: Mapping[str, Any]) -> ModelSpec:
    """`spec` with a JSON merge patch (RFC 7386) applied. A part may name a base to extend, as in a document."""
    return ModelSpec.read(apply_patch(ModelSpec, load_spec(spec).document(), patch, Path()))


def diff(old: Ref, new: Ref) -> dict[str, tuple[Any, Any]]:
    """JSON path -> (old value, new value) wherever two specs' expanded forms differ; None stands for absent."""
    return difference(load_spec(old).document(), load_spec(new).document())


def in_file(file: str, error: PairformError) -> list[Problem]:
    """An error's problems, each prefixed by the file it is in."""
    found = []
    for problem in error.problems:
        where = ": ".join(part for part in (file, problem.where.removeprefix(file)) if part)
        found.append(Problem(where, problem.found, problem.expected, problem.remedy))
    return found
