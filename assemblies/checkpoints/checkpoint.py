"""A checkpoint folder in any known format, seen under our names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pairform.assemblies.build import skeleton
from pairform.assemblies.checkpoints.hub import find_folder
from pairform.assemblies.checkpoints.stored import StoredTensor, stored_tensors
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.load_spec import spec_of_folder
from pairform.assemblies.specs import ModelSpec
from pairform.registry import CheckpointError, Problem

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose tensors are those of `spec`, by our names. Its header was read, its weights were not."""

    folder: Path
    format: str
    spec: ModelSpec
    tensors: Mapping[str, StoredTensor]

    def stored_name(self, name: str) -> str:
        """The name under which a tensor of the model is stored: tied embeddings are the encoder's."""
        tied = self.spec.tie_embeddings and name.startswith("decoder.embedding.")
        return name.replace("decoder.", "encoder.", 1) if tied else name


def open_checkpoint(ref: str | Path, *, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id `owner/name` at `revision`.

    Its spec and the names, shapes and dtypes of its tensors are checked; all that is wrong is in one `CheckpointError`.
    """
    folder = find_folder(ref, revision)
    format_, spec = spec_of_folder(folder)
    stored = stored_tensors(folder)
    tensors: dict[str, StoredTensor] = {}
    problems: list[Problem] = []
    family = FAMILIES.get(format_)
    for name, tensor in stored.items():
        ours = name if family is None else family.ours(name)
        if family is not None and not family.reads(name):
            continue
        if tied(ours, spec):
            continue  # some writers store tied tensors a second time
        if ours is None:
            problems.append(
                Problem(f"{tensor.file}: {name}", "a tensor that this model does not have", "only the spec's tensors")
            )
        elif ours in tensors:
            problems.append(Problem(f"{tensor.file}: {name}", f"{ours} a second time", "each tensor once"))
        else:
            tensors[ours] = tensor
    problems += mismatches(spec, tensors, folder)
    if problems:
        raise CheckpointError(problems)
    return Checkpoint(folder, format_, spec, tensors)


def tied(name: str | None, spec: ModelSpec) -> bool:
    """Whether a tensor is one that another stands for."""
    if name == "head.weight":
        return getattr(spec.head, "tie", None) is not None
    return spec.tie_embeddings and name is not None and name.startswith("decoder.embedding.")


def mismatches(spec: ModelSpec, tensors: Mapping[str, StoredTensor], folder: Path) -> Iterator[Problem]:
    """Where stored tensors and those of the spec differ in name or shape."""
    shapes = {name: tuple(parameter.shape) for name, parameter in skeleton(spec).named_parameters()}
    for name, shape in shapes.items():
        if name not in tensors:
            yield Problem(f"{folder}: {name}", "no such tensor", f"one of shape {list(shape)}")
        elif tensors[name].shape != shape:
            stored = tensors[name]
            where = f"{stored.file}: {stored.name}"
            yield Problem(where, f"the shape {list(stored.shape)}", f"{list(shape)}, as the configuration says")
    for name in tensors.keys() - shapes.keys():
        where = f"{tensors[name].file}: {tensors[name].name}"
        yield Problem(where, "a tensor that this model does not have", "only the spec's tensors")
