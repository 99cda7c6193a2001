"""Reading models from folders and writing them to folders."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, OURS, SPEC
from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPES, CheckpointTensor
from pairform.assemblies.checkpoints.sharded import (
    announced,
    gathered_entry,
    is_sharded_model,
    load_sharded,
    reshard,
    take_part,
    writes,
    writing,
)
from pairform.assemblies.checkpoints.transforms.prepacking import prepacker
from pairform.assemblies.checkpoints.transforms.quantisation import quantiser
from pairform.assemblies.checkpoints.unwrapping import spec_tensors, unwrapped
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE
from pairform.assemblies.checkpoints.writing.finite import cast
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.checkpoints.writing.record import record_of
from pairform.assemblies.checkpoints.writing.shards import Entry, Progress, silent, write_json, write_tensors
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.families.tokens import GENERATION, with_spec_tokens, with_tokens
from pairform.assemblies.modeling.build import check_place, skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, OutputError, Problem, SpecError, read_json, shorten

if TYPE_CHECKING:  # torch.distributed takes as long to import as all of ours
    from torch.distributed.device_mesh import DeviceMesh

    from pairform.assemblies.modeling.sharding import Precision

Format = Literal["pairform", "transformers"]


def load(
    path_or_repo: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    kernel: str = "auto",
    patch: Mapping[str, Any] | None = None,
    quantise: str | None = None,
    prepack: bool = False,
    mesh: "DeviceMesh | None" = None,
    precision: "Precision | None" = None,
) -> Model:
    """Load a model from a folder or hub repository, in pairform's format or transformers', in eval mode.

    Args:
        path_or_repo: a folder, or a hub id `owner/name`.
        device: where to put the weights.
        dtype: None keeps the stored one. If the tensors have several, it is the one that config.json names, else the narrowest
            that holds all of them.
        revision: of a hub repository: a branch, tag or commit.
        kernel: the attention kernel of every block; "auto" leaves the choice to the spec.
        patch: a JSON merge patch on the spec, to run the same weights in another way (with another window, say). The patched
            spec must have exactly the stored tensors; `carry` makes a model with others.
        quantise: "int8" stores each linear weight of the stacks in 8 bits, about half the memory of bfloat16. Such a model can
            be neither trained nor saved. Needs torchao.
        prepack: lay out each linear weight of the stacks in the blocks that oneDNN multiplies, which is faster for few tokens,
            as in decoding. Such a model can be neither trained nor saved. For CPUs.
        mesh: shard the model over the processes of this mesh, as `pairform.shard` does. Each process calls this function and
            reads only its rows of each tensor.
        precision: with a mesh, that of `pairform.shard`.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its values do not fit `dtype`.
        SpecError: the patch does not give a valid spec.
        InputError: another argument is invalid.
    """
    check_place(device, dtype, kernel)
    if not isinstance(prepack, bool):
        raise InputError(Problem("prepack", shorten(prepack), "true or false"))
    checkpoint = open_checkpoint(path_or_repo, revision=revision, patch=patch)
    model = skeleton(checkpoint.spec, checkpoint.dtype if dtype is None else dtype)
    if prepack and quantise is not None:
        raise InputError(Problem("prepack", f"prepack with quantise={quantise!r}", "one of them"))
    if precision is not None and mesh is None:
        raise InputError(
            Problem("precision", "a precision without a mesh", "both or neither", "`dtype` sets that of the weights.")
        )
    if mesh is not None:
        if prepack or quantise is not None:
            remedy = "Leave the mesh out: one process generates with such weights."
            raise InputError(Problem("mesh", "quantised or prepacked weights over several processes", "plain weights", remedy))
        if kernel != "auto":
            model.use_kernel(kernel)
        return load_sharded(checkpoint, model, mesh, device, precision)
    prepare = prepacker(model, device) if prepack else quantiser(model, quantise)
    with torch.no_grad():
        dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
        state = {name: prepare(name, placed(checkpoint.tensors[name], device, kept)) for name, kept in dtypes.items()}
    model.load_state_dict(state, assign=True, strict=False)  # a tied tensor has one name in `state` and two in the model
    if kernel != "auto":
        model.use_kernel(kernel)
    return model


def placed(stored: CheckpointTensor, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """A stored tensor on a device; a `CheckpointError` if its values are beyond the range of `dtype`."""
    return cast(stored.read().to(device), dtype, stored.place)


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
) -> None:
    """Write a model's folder. It appears whole or not at all.

    Args:
        model: a model, also inside torch.compile, DataParallel or DistributedDataParallel. If it is sharded over processes,
            each of them calls this function; the tensors are gathered one at a time, and process 0 writes them.
        directory: a new or empty folder.
        format: "pairform", or "transformers" for a folder that transformers loads strictly.
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `directory`.

    Raises:
        InputError: another wrapper, an adapter that is not merged, or tensors that are not those of the model's spec.
        SpecError: transformers cannot express the spec.
        OutputError: the folder cannot be written.
    """
    check_format(format)
    model = unwrapped(model)
    sharded = is_sharded_model(model)
    if sharded:
        reshard(model)
    tensors = spec_tensors(model, sharded=sharded)
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in DTYPES.values()]
    if odd or any(tensor.is_meta for tensor in tensors.values()):
        raise OutputError(
            Problem(odd[0] if odd else "model", "a dtype or device without data to save", "floating-point weights")
        )
    entry = gathered_entry if sharded else tensor_entry
    entries = [entry(name, tensor) for name, tensor in tensors.items()]
    if sharded and not writes():
        take_part(stored_entries(entries, model.spec, format), max_shard_size)
        return
    with writing() if sharded else nullcontext():
        size = sum(entry.size for entry in entries)
        with new_folder(directory, overwrite=overwrite, size=size) as folder:
            entries = announced(entries) if sharded else entries
            write_model(folder, model.spec, entries, format, {"origin": "save"}, max_shard_size=max_shard_size)


def tensor_entry(name: str, tensor: Tensor) -> Entry:
    """A tensor in memory, to be written."""
    return Entry(name, tensor.dtype, tuple(tensor.shape), lambda: [tensor.detach().cpu()])


def check_format(format_: object) -> None:
    if not isinstance(format_, str) or format_ not in get_args(Format):
        raise OutputError(Problem("format", shorten(format_), f"one of {', '.join(get_args(Format))}"))


def write_model(
    folder: Path,
    spec: ModelSpec,
    entries: list[Entry],
    format_: Format,
    provenance: Mapping[str, Any],
    *,
    max_shard_size: int | str = "5GB",
    progress: Progress = silent,
) -> None:
    """Write spec or configuration, weights and provenance into an empty folder. `entries` have our names."""
    check_format(format_)
    entries = stored_entries(entries, spec, format_)
    write_generation(folder, spec, format_)
    if format_ == OURS:
        write_json(folder / SPEC, spec.document())
    else:
        _, config = family_of_spec(spec)
        dtypes = {str(entry.dtype).removeprefix("torch.") for entry in entries}
        write_json(folder / CONFIG, config | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {}), sort_keys=True)
    checksums = write_tensors(folder, entries, max_shard_size=max_shard_size, progress=progress)
    write_json(folder / PROVENANCE, {**provenance, **record_of(folder, entries, checksums)})


def stored_entries(entries: list[Entry], spec: ModelSpec, format_: Format) -> list[Entry]:
    """`entries` under the names of the format."""
    if format_ == OURS:
        return entries
    family, _ = family_of_spec(spec)
    return [replace(entry, name=family.theirs(entry.name, spec)) for entry in entries]


def write_generation(folder: Path, spec: ModelSpec, format_: Format) -> None:
    """Write generation settings with the spec's tokens; the other settings are those copied from a source, if any.

    transformers takes tokens from this file, and from config.json only without it. Our format takes them from spec.json alone:
    there a copied file is rewritten only if its tokens differ.
    """
    path = folder / GENERATION
    copied = path.is_file()
    if spec.decoder is None or spec.head.name != "lm":
        path.unlink(missing_ok=True)
    elif copied or format_ != OURS:
        try:
            settings = read_json(path) if copied else {}
        except SpecError as error:
            problem = error.problems[0]
            raise OutputError(Problem(f"{GENERATION} of the source", problem.found, problem.expected)) from None
        tokens = spec.tokens.document()
        if format_ != OURS or with_tokens(tokens, settings) != tokens:
            write_json(path, with_spec_tokens(settings, spec), sort_keys=True)
