"""Reading models from folders and writing them to folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.safetensors_file import DTYPES
from pairform.assemblies.checkpoints.sharded import is_sharded_model, load_sharded, reshard, save_sharded
from pairform.assemblies.checkpoints.transforms.prepacking import prepacker
from pairform.assemblies.checkpoints.transforms.quantisation import quantiser
from pairform.assemblies.checkpoints.unwrapping import spec_tensors, unwrapped
from pairform.assemblies.checkpoints.writing.companions import companions_in
from pairform.assemblies.checkpoints.writing.finite import cast
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.modeling.build import check_place, skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry import InputError, OutputError, Problem, shorten

if TYPE_CHECKING:  # torch.distributed takes as long to import as all of ours
    from torch.distributed.device_mesh import DeviceMesh

    from pairform.assemblies.modeling.sharding import Precision


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
        path_or_repo: a folder, or a hub id `owner/name` or `owner/name@revision`.
        device: where to put the weights. With a mesh, they are on the mesh's devices.
        dtype: None keeps the stored one. If the tensors have several, it is the one that config.json names, else the narrowest
            that holds all of them.
        revision: of a hub id that does not say it itself: a branch, tag or commit.
        kernel: the attention kernel of every block; "auto" leaves the choice to the spec.
        patch: a JSON merge patch on the spec, to run the same weights in another way (with another window, say). The patched
            spec must have exactly the stored tensors; `carry` makes a model with others.
        quantise: "int8" stores each linear weight of the stacks in 8 bits, about half the memory of bfloat16. "int8_dynamic",
            for CPUs, also quantises the inputs of these layers, token by token, and multiplies integers, which is several times
            as fast. Such a model can be neither trained nor saved. Needs torchao.
        prepack: lay out each linear weight of the stacks in the blocks that oneDNN multiplies, which is faster for few tokens,
            as in decoding. Such a model can be neither trained nor saved. For CPUs.
        mesh: shard the model over the processes of this mesh, as `pairform.shard` does. Each process calls this function and
            reads only its rows of each tensor.
        precision: with a mesh, that of `pairform.shard`.

    Returns:
        The model.

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
    model.generation = checkpoint.files.settings
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
        if torch.device(device).type not in ("cpu", mesh.device_type):
            raise InputError(Problem("device", str(device), f"none, or {mesh.device_type}, as in the mesh"))
        if kernel != "auto":
            model.use_kernel(kernel)
        return load_sharded(checkpoint, model, mesh, precision)
    prepare = prepacker(model, device) if prepack else quantiser(model, quantise, torch.device(device))
    with torch.no_grad():
        state: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            stored = checkpoint.tensors[name]
            state[name] = prepare(name, cast(stored.read().to(device), parameter.dtype, stored.place))
    # assigned, not copied: a skeleton's tensors have no memory
    model.load_state_dict(state, assign=True, strict=False)  # a tied tensor has one name in `state` and two in the model
    if kernel != "auto":
        model.use_kernel(kernel)
    return model


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    companions: str | Path | None = None,
) -> None:
    """Write a model's folder. It appears whole or not at all.

    Args:
        model: a model, also inside torch.compile, DataParallel or DistributedDataParallel. If it is sharded over processes,
            each of them calls this function; the tensors are gathered one at a time, and process 0 writes them.
        directory: a new or empty folder.
        format: "pairform", or "transformers" for a folder that transformers loads strictly.
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `directory`.
        companions: a folder or hub id whose tokenizers, chat template and generation settings are copied, such as the one that
            the model was loaded from. The provenance names it as a base of the model.

    Raises:
        CheckpointError: the companions cannot be read.
        InputError: another wrapper, an adapter that is not merged, or tensors that are not those of the model's spec.
        SpecError: transformers cannot express the spec.
        OutputError: the folder cannot be written.
    """
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
    output = Output(directory, format, max_shard_size, overwrite)
    settings = GenerationSpec.of(model.generation)
    if sharded:
        save_sharded(output, model.spec, tensors, companions, settings)
    else:
        beside = companions_in(companions, settings)
        entries = [tensor_entry(name, tensor) for name, tensor in tensors.items()]
        output.write(model.spec, entries, {"origin": "save"}, beside)


def tensor_entry(name: str, tensor: Tensor) -> Entry:
    """A tensor in memory, to be written."""
    # copied to the CPU only when it is written, one tensor at a time
    return Entry(name, tensor.dtype, tuple(tensor.shape), lambda: [tensor.detach().cpu()])
