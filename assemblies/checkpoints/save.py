"""Reading models from folders and writing them to folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.plain import plain_tensors, unwrapped
from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.load_spec import CONFIG, OURS, SPEC
from pairform.assemblies.checkpoints.reading.stored import DTYPES, StoredTensor
from pairform.assemblies.checkpoints.transforms.prepacking import prepacker
from pairform.assemblies.checkpoints.transforms.quantisation import quantiser
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE
from pairform.assemblies.checkpoints.writing.finite import cast
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.checkpoints.writing.record import record_of
from pairform.assemblies.checkpoints.writing.shards import Entry, write_json, write_tensors
from pairform.assemblies.checkpoints.writing.tensor_stream import Progress, TensorContent, silent
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.families.generation import GENERATION, with_spec_tokens, with_tokens
from pairform.assemblies.modeling.build import check_place, skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, OutputError, Problem, SpecError, read_json, shorten

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
) -> Model:
    """The model in a folder or hub repository, ours or transformers', in eval mode.

    dtype:    None keeps the stored one; where the tensors are of several, the one that config.json names, else the narrowest
              that holds all of them.
    kernel:   the attention kernel for every block; "auto" leaves it to the spec.
    patch:    a JSON merge patch on its spec, to run the same weights in another way (another window, say). The stored tensors
              must be those of the patched spec: one too few or too many is an error, and for `carry`.
    quantise: "int8" keeps each linear weight of the stacks in eight bits, quantised as it is read: a model to run in about
              half the memory of bfloat16, not to train or to save. Needs torchao.
    prepack:  lay out each linear weight of the stacks as this processor's products read it, in place of the plain one: quicker
              for few tokens, as in decoding, and not to train or to save. For a CPU.
    """
    check_place(device, dtype, kernel)
    if not isinstance(prepack, bool):
        raise InputError(Problem("prepack", shorten(prepack), "true or false"))
    checkpoint = open_checkpoint(path_or_repo, revision=revision, patch=patch)
    model = skeleton(checkpoint.spec, checkpoint.dtype if dtype is None else dtype)
    if prepack and quantise is not None:
        raise InputError(Problem("prepack", f"prepack with quantise={quantise!r}", "one of them"))
    prepare = prepacker(model, device) if prepack else quantiser(model, quantise)
    with torch.no_grad():
        dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
        state = {name: prepare(name, placed(checkpoint.tensors[name], device, kept)) for name, kept in dtypes.items()}
    model.load_state_dict(state, assign=True, strict=False)  # a tied tensor has one name in `state` and two in the model
    if kernel != "auto":
        model.use_kernel(kernel)
    return model


def placed(stored: StoredTensor, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """A stored tensor on a device; one that `dtype` cannot hold is an error."""
    return cast(stored.read().to(device), dtype, stored.place)


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
) -> None:
    """Write a model's folder. It appears whole or not at all; an existing one is replaced only with `overwrite`.

    The format "transformers" writes what transformers loads strictly; a spec that it cannot say is an error. A model inside
    torch.compile, DataParallel or DistributedDataParallel is saved as itself. Any other wrapper, an adapter that is not merged
    and a model whose tensors are not those of its spec are errors.
    """
    check_format(format)
    model = unwrapped(model)
    tensors = plain_tensors(model)
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in DTYPES.values()]
    if odd or any(tensor.is_meta for tensor in tensors.values()):
        raise OutputError(
            Problem(odd[0] if odd else "model", "a dtype or device without data to save", "floating-point weights")
        )
    entries = [Entry(name, tensor.dtype, tuple(tensor.shape), TensorContent(tensor)) for name, tensor in tensors.items()]
    size = sum(entry.size for entry in entries)
    with new_folder(directory, overwrite=overwrite, size=size) as folder:
        write_model(folder, model.spec, entries, format, {"origin": "save"}, max_shard_size=max_shard_size)


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
    """Spec or configuration, weights and provenance into an empty folder. `entries` have our names."""
    check_format(format_)
    write_generation(folder, spec, format_)
    if format_ == OURS:
        write_json(folder / SPEC, spec.document())
    else:
        family, config = family_of_spec(spec)
        entries = [Entry(family.theirs(entry.name, spec), entry.dtype, entry.shape, entry.content) for entry in entries]
        dtypes = {str(entry.dtype).removeprefix("torch.") for entry in entries}
        write_json(folder / CONFIG, config | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {}), sort_keys=True)
    checksums = write_tensors(folder, entries, max_shard_size=max_shard_size, progress=progress)
    write_json(folder / PROVENANCE, {**provenance, **record_of(folder, entries, checksums)})


def write_generation(folder: Path, spec: ModelSpec, format_: Format) -> None:
    """Generation settings whose tokens are the spec's; the other settings are those that came along from a source, if any did.

    transformers takes tokens from this file, and from config.json only without it. In our format spec.json alone counts: there
    the file stays as it came unless it says otherwise.
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
        if format_ != OURS or with_tokens(spec, settings) != spec:
            write_json(path, with_spec_tokens(settings, spec), sort_keys=True)
