"""Where the weights of a trial come from: a random initialisation, a checkpoint, or a conversion of checkpoints."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import torch

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.hub import download, find_folder, is_remote, repository
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.checkpoints.reading.model_folder import SPEC
from pairform.assemblies.checkpoints.reading.weights import INDEX, SINGLE
from pairform.assemblies.initialisation.carry import build_planned, plan_carry
from pairform.assemblies.initialisation.plan import Plan, Role
from pairform.assemblies.initialisation.planning import open_sources, plan_of, target_ref
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import NEW, Carried, Weights
from pairform.experiments.study.ladder import SCALE, rescaled
from pairform.registry import CheckpointError, Problem, SpecError, apply_patch, locate, presets, shorten, thaw
from pairform.training.adaptation.recipe_parts import ConversionSpec, Converted

CONVERT, DOCUMENT = "convert", "spec"
"""Fields of a study's base that is converted: the arguments, and the document of the model that they make."""
Patches: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Initialisation:
    """A trial's model, of whose weights none is read yet.

    plan:        where each tensor comes from; None: the weights are newly initialised.
    checkpoints: the sources, open.
    names:       of the sources in the study.
    """

    spec: ModelSpec
    plan: Plan | None = None
    checkpoints: Mapping[Role, Checkpoint] | None = None
    names: Mapping[Role, str] | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The weight files of the sources, by a name that does not depend on the place of the study."""
        return {
            f"{(self.names or {})[role]}/{path.name}": path
            for role, checkpoint in (self.checkpoints or {}).items()
            for path in sorted({each.path for each in checkpoint.tensors.values() if each.path is not None})
        }

    @property
    def carried(self) -> Carried | None:
        """How much of the model comes from its sources."""
        if self.plan is None:
            return None
        totals = self.plan.totals
        tensors, parameters = (
            sum(totals[kind][count] for kind in ("copied", "derived")) for count in ("tensors", "parameters")
        )
        fresh = totals["fresh"]
        return Carried(tensors=tensors, parameters=parameters, new_tensors=fresh["tensors"], new_parameters=fresh["parameters"])

    def build(self, device: str) -> Model:
        """The model, with float32 weights."""
        assert self.plan is not None, "new weights are drawn by `build`"
        return build_planned(self.plan, self.checkpoints or {}, torch.device(device)).float()


def initialise(base: Mapping[str, Any], weights: Weights, patches: Patches, folder: Path, seed: int = 0) -> Initialisation:
    """Plan the model of a trial. Only headers of checkpoints are read.

    Args:
        base: The study's base, expanded.
        weights: "new", a folder or hub id, or the document of a `Converted`.
        patches: The patches on the model, in order.
        folder: Folder to which paths are relative.
        seed: Of newly initialised weights, unless a conversion has its own.

    Raises:
        PairformError: the model is invalid, a checkpoint cannot be read, or none of its tensors fits the model.
    """
    document = thaw(base[DOCUMENT] if CONVERT in base else base)
    if weights == NEW:
        return Initialisation(patched(document, patches, folder))
    if isinstance(weights, str):
        found = carried_over(document, weights, patches, folder, seed)
    else:
        arguments = Converted.read(thaw(weights), where="weights").convert
        found = converted(arguments, None if CONVERT in base else document, patches, folder, seed)
    if found.carried is not None and not found.carried.tensors:
        remedy = 'Use weights that fit, or "new".'
        raise SpecError(Problem("weights", f"no tensor of {shorten(weights)} fits the model", "at least one", remedy))
    return found


def carried_over(document: dict[str, Any], ref: str, patches: Patches, folder: Path, seed: int) -> Initialisation:
    """A model with the weights of a checkpoint that fit it."""
    try:
        source = find_source(ref, folder)
    except CheckpointError as error:
        if ref in presets() or is_remote(ref, folder) or (folder / ref).exists():
            raise
        raise SpecError(
            Problem("weights", f"{shorten(ref)}, no such folder", f'{NEW!r}, a folder, a hub id or {{"convert": ...}}')
        ) from error
    checkpoint = open_checkpoint(source)
    own = ModelSpec.read(document) == checkpoint.spec
    target = patched(document, patches, folder)
    plan = plan_carry(checkpoint, target, patched=own, seed=seed, dtype="float32")
    return Initialisation(plan.spec, plan, {"model": checkpoint}, {"model": ref})


def converted(
    arguments: ConversionSpec, document: dict[str, Any] | None, patches: Patches, folder: Path, seed: int
) -> Initialisation:
    """A model converted from checkpoints: the one that the arguments describe, or else the one in `document`."""
    names: dict[Role, str] = {role: ref for role in get_args(Role) if isinstance(ref := getattr(arguments, role, None), str)}
    unknown = [role for role in arguments.revisions if role not in names]
    if unknown:
        raise SpecError(Problem(f"weights.convert.revisions.{unknown[0]}", "no such source", f"one of {', '.join(names)}"))
    refs: dict[Role, str | Path | None] = {
        role: find_source(ref, folder, arguments.revisions.get(role)) for role, ref in names.items()
    }
    sources = open_sources(refs, None)
    options = arguments.arguments["options"]
    options = options.model_copy(
        update={
            "seed": arguments.seed if "seed" in arguments.model_fields_set else seed,
            "dtype": options.dtype or "float32",
        }
    )
    described = document if arguments.spec is None else load_spec(locate(arguments.spec, folder))
    found = target_ref({role: source.spec for role, source in sources.items()}, described, options)
    document = found if isinstance(found, dict) else load_spec(found).document()
    target = patched(patched(document, [arguments.patch], folder).document(), patches, folder)
    plan = plan_of(sources, refs, target, None, options)
    return Initialisation(plan.spec, plan, sources, names)


def patched(document: dict[str, Any], patches: Iterable[Mapping[str, Any]], folder: Path) -> ModelSpec:
    """A model with patches. One with a `scale` first scales it, by the factors that give the unpatched model this size."""
    base = document
    for patch in patches:
        if SCALE in patch:
            document = rescaled(ModelSpec.read(document), patch[SCALE], ModelSpec.read(base)).document()
        changes = {field: value for field, value in patch.items() if field != SCALE}
        document = apply_patch(ModelSpec, document, changes, folder)
    return ModelSpec.read(document)


def expand_base(base: Any, folder: Path) -> tuple[dict[str, Any], Weights] | None:
    """The base of a study that is a checkpoint or a conversion, expanded, and the weights that it gives; None for a spec.

    Raises:
        PairformError: the conversion is invalid, or a checkpoint cannot be read.
    """
    if isinstance(base, Mapping) and CONVERT in base:
        weights = {name: value for name, value in base.items() if name != DOCUMENT}
        try:
            arguments = Converted.read(weights).convert
            made = converted(arguments, None, (), folder, 0)
        except SpecError as error:
            raise SpecError([problem.inside("base") for problem in error.problems]) from None
        return weights | {DOCUMENT: made.spec.document()}, weights
    if isinstance(base, str) and is_checkpoint(base, folder):
        return load_spec(find_source(base, folder)).document(), base
    return None


def is_checkpoint(ref: str, folder: Path) -> bool:
    """Whether `ref` names a folder with weights or, if there is nothing of that name, a repository of the hub."""
    if not ref or ref in presets():
        return False
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # as in `locate`
        path = folder / Path(ref).expanduser()
        if path.is_dir():
            return not (path / SPEC).is_file() or any((path / name).exists() for name in (SINGLE, INDEX))
        return is_remote(ref, folder)
    return False


def find_source(ref: str, folder: Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint, which is relative to `folder` or a hub id."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if ref and (path := folder / Path(ref).expanduser()).exists():
            return find_folder(path, revision)
        if is_remote(ref, folder):
            return download(repository(ref, revision))
    return find_folder(folder / ref if ref else ref, revision)
