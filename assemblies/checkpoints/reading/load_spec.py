"""From a reference (preset, path, folder, document) to a validated spec; patches and differences of specs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pairform.assemblies.checkpoints.reading.hub import find_folder, is_remote
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder, read_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.scaling.scaled_model import ScaleSpec, scale_model
from pairform.registry import SPEC_BYTES, Problem, SpecError, apply_patch, difference, locate, read_json, shorten

Ref: TypeAlias = str | Path | Mapping[str, Any] | ModelSpec
"""A reference to a spec: a preset's name, a path, a hub id, a document, or a spec."""


def load_spec(ref: Ref, patch: Mapping[str, Any] | None = None, *, revision: str | None = None) -> ModelSpec:
    """Read and validate a spec.

    Args:
        ref: a preset's name, a JSON file, a model's folder (pairform's format or transformers'), a hub id `owner/name` or
            `owner/name@revision`, of which only configurations are downloaded, a document, or a `ModelSpec`.
        patch: a JSON merge patch (RFC 7386), applied before validation.
        revision: of a hub id that does not say it itself: a branch, tag or commit.

    Returns:
        The spec; of a `ModelSpec` without a patch, itself.

    Raises:
        SpecError: the reference, the document or the patch is invalid; it names the file and the JSON path.
        CheckpointError: the folder holds no model of a known format, or the hub has none of that name.
    """
    if revision is not None and isinstance(ref, ModelSpec | Mapping):
        raise SpecError(Problem("revision", shorten(revision), "none: only a hub id has revisions"))
    if isinstance(ref, ModelSpec):
        return ref if patch is None else patch_spec(ref, patch)
    if isinstance(ref, Mapping):
        return read_document(ref, Path(), "", patch)
    if not isinstance(ref, str | Path):
        raise SpecError(Problem("", shorten(ref), "a preset's name, a path or a document"))
    if revision is not None or is_remote(ref):
        return load_spec(ModelFolder(find_folder(ref, revision, weights=False)).spec, patch)
    path = locate(str(ref), Path())
    if path.is_dir():
        return load_spec(ModelFolder(path).spec, patch)
    return read_document(read_json(path, SPEC_BYTES), path.parent, str(ref), patch)


def patch_spec(spec: Ref, patch: Mapping[str, Any]) -> ModelSpec:
    """Apply a JSON merge patch (RFC 7386) to a spec.

    Args:
        spec: as for `load_spec`.
        patch: `null` removes a field. A stack in it may name a base to extend, as in a document.

    Returns:
        The patched spec; `spec` is unchanged.

    Raises:
        SpecError: the patch does not give a valid spec.
    """
    return ModelSpec.read(apply_patch(ModelSpec, load_spec(spec).document(), patch, Path()))


def diff(old: Ref, new: Ref) -> dict[str, tuple[Any, Any]]:
    """Compare the expanded forms of two specs.

    Args:
        old, new: as for `load_spec`.

    Returns:
        JSON path -> (old value, new value) wherever they differ; None stands for absent.

    Raises:
        SpecError, CheckpointError: as for `load_spec`.
    """
    return difference(load_spec(old).document(), load_spec(new).document())


def scale(spec: Ref, *, width: int | None = None, depth: int | None = None, window: int | None = None) -> ModelSpec:
    """Scale a model to another width and depth, with its proportions kept.

    Numbers of heads, head dimensions, hidden sizes, latent ranks and the ratios of the stacks follow the width. Multi-head,
    grouped-query and multi-query attention stay what they are. The cycle of layers is kept; if there are fewer layers than it
    has, they are chosen from it evenly, its last included. Vocabularies, positions and numbers of experts stay.

    Args:
        spec: as for `load_spec`.
        width: of the decoder, or of an encoder-only model's encoder. An encoder of another width keeps its ratio, rounded.
        depth: number of layers of the decoder, or of an encoder-only model's encoder. An encoder keeps its ratio.
        window: the largest distance of a sliding window; smaller windows keep their ratio. Default: windows stay.

    Returns:
        The scaled spec. Scaling a model to its own size does not change it.

    Raises:
        SpecError: a size is invalid, or the model's blocks do not fit the width.
    """
    return scale_model(load_spec(spec), ScaleSpec.read({"width": width, "depth": depth, "window": window}))
