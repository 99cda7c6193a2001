"""A checkpoint folder in any known format, seen under our names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.build import parameters_of
from pairform.assemblies.checkpoints.hub import find_folder
from pairform.assemblies.checkpoints.quantised import quantised_by, quantised_tensor, refuse_quantised
from pairform.assemblies.checkpoints.stored import StoredTensor, stored_tensors
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.load_spec import CONFIG, OURS, load_spec, spec_of_folder
from pairform.assemblies.specs import ModelSpec
from pairform.registry import CheckpointError, Problem, read_json


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose tensors are those of `spec`, by our names. Its header was read, its weights were not.

    dtype: what it is run in, however its tensors are stored.
    """

    folder: Path
    format: str
    spec: ModelSpec
    tensors: Mapping[str, StoredTensor]
    dtype: torch.dtype

    def stored_name(self, name: str) -> str:
        """The name under which a tensor of the model is stored: tied embeddings are the encoder's."""
        tied = self.spec.tie_embeddings and name.startswith("decoder.embedding.")
        return name.replace("decoder.", "encoder.", 1) if tied else name


def open_checkpoint(ref: str | Path, *, revision: str | None = None, patch: Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id `owner/name` at `revision`; `patch`, a JSON merge patch, is on its spec.

    Its spec and the names, shapes and dtypes of its tensors are checked; all that is wrong is in one `CheckpointError`.
    """
    folder = find_folder(ref, revision)
    format_, spec = spec_of_folder(folder)
    if format_ != OURS:
        refuse_quantised(read_json(folder / CONFIG), folder / CONFIG)
    stored = stored_tensors(folder)
    refuse_wrapped(stored)
    tensors: dict[str, StoredTensor] = {}
    spares: dict[str, StoredTensor] = {}
    problems: list[Problem] = []
    family = FAMILIES.get(format_)
    for name, tensor in stored.items():
        ours = name if family is None else family.ours(name)
        if family is not None and (stands_for := family.spare(name)) is not None:
            spares.setdefault(stands_for, tensor)
        if family is not None and not family.reads(name):
            continue
        if tied(ours, spec):
            continue  # some writers store tied tensors a second time
        if ours is None:
            problems.append(unknown(tensor))
        elif ours in tensors:
            problems.append(Problem(f"{tensor.file}: {name}", f"{ours} a second time", "each tensor once"))
        else:
            tensors[ours] = tensor
    for name, tensor in spares.items():
        tensors.setdefault(name, tensor)
    patched = spec if patch is None else load_spec(spec, patch)
    unfit = list(mismatches(patched, tensors, folder))
    if patch is not None and unfit:
        unfit[0] = replace(unfit[0], remedy=unfit[0].remedy or PATCHED)
    problems += unfit
    if problems:
        raise CheckpointError(problems)
    return Checkpoint(folder, format_, patched, tensors, one_dtype(patched, tensors, folder))


def one_dtype(spec: ModelSpec, tensors: Mapping[str, StoredTensor], folder: Path) -> torch.dtype:
    """The dtype to run the model in: the stored one. Where there are several, the one that config.json names, as transformers
    takes it, else the narrowest that holds all of them. What float16 leaves in float32 does not count."""
    kept = {name for name, parameter in parameters_of(spec).items() if parameter.wide}
    stored = {tensor.dtype for name, tensor in tensors.items() if name not in kept} or {torch.float32}
    if len(stored) > 1 and (folder / CONFIG).exists():
        config = read_json(folder / CONFIG)
        named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
        stored = {dtype for dtype in stored if dtype_name(dtype) == named} or stored
    return reduce(torch.promote_types, stored)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tied(name: str | None, spec: ModelSpec) -> bool:
    """Whether a tensor is one that another stands for."""
    if name == "head.weight":
        return getattr(spec.head, "tie", None) is not None
    return spec.tie_embeddings and name is not None and name.startswith("decoder.embedding.")


def mismatches(spec: ModelSpec, tensors: Mapping[str, StoredTensor], folder: Path) -> Iterator[Problem]:
    """Where stored tensors and those of the spec differ in name or shape."""
    shapes = {name: parameter.shape for name, parameter in parameters_of(spec).items()}
    for name, shape in shapes.items():
        if name not in tensors:
            yield Problem(
                f"{folder}: {name}", "no such tensor", f"one of shape {list(shape)}", HEADLESS if head_of(name) else ""
            )
        elif tensors[name].shape != shape:
            stored = tensors[name]
            where = f"{stored.file}: {stored.name}"
            yield Problem(where, f"the shape {list(stored.shape)}", f"{list(shape)}, as the configuration says")
    for name in sorted(tensors.keys() - shapes.keys()):
        yield unknown(tensors[name])


PATCHED = "A patch may change how the stored tensors are used, not which there are: `carry` makes another model of them."
HEADLESS = 'For the model without its head, call load(..., patch={"head": {"name": "none"}}).'


def head_of(name: str) -> bool:
    return name.startswith("head.")


def unknown(tensor: StoredTensor) -> Problem:
    if (found := quantised_by([tensor.name])) is not None:
        return quantised_tensor(tensor.file, *found)
    return Problem(tensor.place, "a tensor that this model does not have", "only the spec's tensors")


WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel or DistributedDataParallel",
    "base_model.model.": "PEFT",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
}
"""What programs put before all names when they save a wrapped model's state in place of the model's."""


def refuse_wrapped(stored: Mapping[str, StoredTensor]) -> None:
    """One `CheckpointError` where all names begin alike, with what a wrapper puts there."""
    for prefix, wrapper in WRAPPERS.items():
        if stored and all(name.startswith(prefix) for name in stored):
            file = next(iter(stored.values())).file
            found = f"names that all begin with {prefix!r}, as {wrapper} makes them"
            remedy = "Save the model inside the wrapper, or take this beginning off the names."
            raise CheckpointError(Problem(str(file), found, "the model's own names", remedy))
