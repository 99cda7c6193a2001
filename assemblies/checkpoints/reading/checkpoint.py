"""A checkpoint folder in any known format, its tensors under pairform's names."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.absent_tensors import ZeroTensor
from pairform.assemblies.checkpoints.reading.fused_tensors import split
from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, ModelFolder
from pairform.assemblies.checkpoints.reading.safetensors_file import (
    DTYPE_NAMES,
    CheckpointTensor,
    StoredTensor,
    odd_dtype,
)
from pairform.assemblies.checkpoints.reading.unsupported import (
    quantised_by,
    quantised_tensor,
    refuse_quantised,
    refuse_wrapped,
)
from pairform.assemblies.families import nearest_family
from pairform.assemblies.families.family import Family, Fused
from pairform.assemblies.modeling.build import Parameter, parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import CheckpointError, Problem

PATCHED = "A patch may change how the stored tensors are used, not which there are: `carry` makes another model of them."
UNFIT = "Correct the configuration, or fetch the folder again if it is incomplete."
HEADLESS = 'For the model without its head, call load(..., patch={"head": {"name": "none"}}).'


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose headers were read and whose weights were not.

    Attributes:
        files: the folder.
        tensors: those of `spec`, by pairform's names.
        dtype: the dtype to run the model in, which may be another than a tensor's own.
    """

    files: ModelFolder
    spec: ModelSpec
    tensors: Mapping[str, CheckpointTensor]
    dtype: torch.dtype

    @property
    def folder(self) -> Path:
        return self.files.path

    @property
    def family_name(self) -> str:
        """The model type of transformers that stores models of this kind; of two that could, the first."""
        return nearest_family(self.spec).model_type

    def stored_name(self, name: str) -> str:
        """The name under which a tensor of the model is stored: tied embeddings are the encoder's."""
        tied = self.spec.tie_embeddings and name.startswith("decoder.embedding.")
        return name.replace("decoder.", "encoder.", 1) if tied else name


def open_checkpoint(ref: str | Path, *, revision: str | None = None, patch: Mapping[str, Any] | None = None) -> Checkpoint:
    """Open a checkpoint and check its spec and the names, shapes and dtypes of its tensors.

    Args:
        ref: a folder, or a hub id `owner/name` or `owner/name@revision`.
        revision: of a hub id that does not say it itself.
        patch: a JSON merge patch on the spec.

    Raises:
        CheckpointError: with everything that is wrong.
    """
    return checkpoint_in(ModelFolder(find_folder(ref, revision)), patch)


def checkpoint_in(folder: ModelFolder, patch: Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint in a folder, as `open_checkpoint`."""
    spec, family = folder.spec, folder.family
    if family is not None:
        family = family.reading(folder.stored_spec)
        refuse_quantised(folder.config, folder.path / CONFIG)
    if folder.tensors:
        refuse_wrapped([*folder.tensors], next(iter(folder.tensors.values())).file.path)
    tensors: dict[str, CheckpointTensor] = {}
    spares: dict[str, StoredTensor] = {}
    problems: list[Problem] = []
    shapes = {name: parameter.shape for name, parameter in parameters_of(spec).items()}
    for name, tensor in folder.tensors.items():
        if family is not None:
            # before `reads`, which is False for such names: they matter only if the tensor itself is missing
            if (stands_for := family.spare(name)) is not None:
                spares.setdefault(stands_for, tensor)
            if not family.reads(name):
                continue
        if not tensor.dtype.is_floating_point:
            problems.append(odd_dtype(tensor.place, DTYPE_NAMES[tensor.dtype]))
            continue
        try:
            named = ours_of(tensor, family, shapes)
        except CheckpointError as error:
            problems += error.problems
            continue
        if not named:
            problems.append(unknown_tensor(tensor))
        for ours, part in named.items():
            if ours.startswith("head.") and folder.modules is not None and not folder.projects:
                continue  # the head of the stack's class, which sentence-transformers does not read
            if is_tied(ours, spec):
                continue  # some writers store tied tensors a second time
            if ours in tensors:
                problems.append(Problem(tensor.place, f"{ours} a second time", "each tensor once"))
            else:
                tensors[ours] = part
    tensors |= {} if folder.modules is None else folder.modules.tensors
    for name, tensor in spares.items():
        tensors.setdefault(name, tensor)
    # their names and shapes against those of the model
    patched = spec if patch is None else load_spec(spec, patch)
    wanted = parameters_of(patched)
    dtype = common_dtype(wanted, tensors, folder.config)
    for name in family.zeros if family is not None and tensors else ():
        if name in wanted and name not in tensors:
            tensors[name] = ZeroTensor(name, dtype, wanted[name].shape, str(folder.path))
    absent = absent_stacks(wanted, tensors)
    unfit = list(mismatches(wanted, tensors, folder.path, absent))
    # before the tensors that are not of this model, which can be many
    missing = [missing_stack(folder.path, *each) for each in absent.items()]
    first = missing or unfit
    if first:
        first[0] = replace(first[0], remedy=first[0].remedy or (UNFIT if patch is None else PATCHED))
    problems = [*missing, *problems, *unfit]
    if problems:
        raise CheckpointError(problems)
    return Checkpoint(folder, patched, tensors, dtype)


def ours_of(tensor: StoredTensor, family: Family | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, CheckpointTensor]:
    """A stored tensor, or the tensors of ours that it holds, by our names; empty if it is not of this model.

    shapes: of all tensors of the model.
    """
    if family is None:
        return {tensor.name: tensor}
    row = family.row(tensor.name)
    if isinstance(row, Fused):
        return split(tensor, row, shapes)
    return {} if row is None else {row.ours: tensor}


def common_dtype(
    wanted: Mapping[str, Parameter], tensors: Mapping[str, CheckpointTensor], config: Mapping[str, Any]
) -> torch.dtype:
    """The dtype to run a model in: that of its tensors. If they have several, the one that config.json names, as in
    transformers, else the narrowest that holds all of them. Tensors that stay in float32 beside float16 do not count."""
    kept = {name for name, parameter in wanted.items() if parameter.wide}
    dtypes = {tensor.dtype for name, tensor in tensors.items() if name not in kept} or {torch.float32}
    if len(dtypes) > 1:
        named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
        dtypes = {dtype for dtype in dtypes if str(dtype).removeprefix("torch.") == named} or dtypes
    return reduce(torch.promote_types, dtypes)


def is_tied(name: str | None, spec: ModelSpec) -> bool:
    """Whether a tensor is stored as another one."""
    if name == "head.weight":
        return spec.head_tie is not None
    return spec.tie_embeddings and name is not None and name.startswith("decoder.embedding.")


def absent_stacks(wanted: Iterable[str], tensors: Mapping[str, CheckpointTensor]) -> dict[str, int]:
    """The stacks of whose layers no tensor is stored, and how many tensors their layers have."""
    layers = Counter(name.partition(".layers.")[0] for name in wanted if ".layers." in name)
    return {stack: count for stack, count in layers.items() if not any(name.startswith(f"{stack}.layers.") for name in tensors)}


def mismatches(
    wanted: Mapping[str, Parameter], tensors: Mapping[str, CheckpointTensor], folder: Path, absent: Container[str]
) -> Iterator[Problem]:
    """Where stored tensors and those of a model differ in name or shape, but for the layers of `absent` stacks."""
    shapes = {name: parameter.shape for name, parameter in wanted.items()}
    for name, shape in shapes.items():
        if name.partition(".layers.")[0] in absent:
            continue
        if name not in tensors:
            remedy = HEADLESS if name.startswith("head.") else ""
            yield Problem(f"{folder}: {name}", "no such tensor", f"one of shape {list(shape)}", remedy)
        elif tensors[name].shape != shape:
            found = f"the shape {list(tensors[name].shape)}"
            yield Problem(tensors[name].place, found, f"{list(shape)}, as the configuration says")
    for name in sorted(tensors.keys() - shapes.keys()):
        yield unknown_tensor(tensors[name])


def missing_stack(folder: Path, stack: str, count: int) -> Problem:
    expected = "the weights of every stack that the configuration declares"
    return Problem(f"{folder}: {stack}.layers", f"none of their {count} tensors", expected)


def unknown_tensor(tensor: CheckpointTensor) -> Problem:
    if (found := quantised_by([tensor.name])) is not None:
        return quantised_tensor(tensor.place, found[1])
    return Problem(tensor.place, "a tensor that this model does not have", "only the spec's tensors")
