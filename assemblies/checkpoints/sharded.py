"""Models that are sharded over processes: each reads its rows of every tensor, and all send theirs to the one that writes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor
from pairform.assemblies.checkpoints.writing.companions import companions_in
from pairform.assemblies.checkpoints.writing.finite import cast
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Entry, arranged
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem

GOES_ON, FAILED = 1, 0


def load_sharded(checkpoint: Checkpoint, model: Model, mesh: Any, precision: Any) -> Model:
    """Shard a skeleton over the processes of `mesh`, and fill in the rows of each tensor that this process holds.

    Memory stays at this process's share of the weights and one piece of a tensor.

    Raises:
        CheckpointError: a file cannot be read, or its values do not fit the dtype; in a process without an error of its own, a
            `PeerError`.
    """
    from pairform.assemblies.modeling.processes import together
    from pairform.assemblies.modeling.sharding import shard

    model = shard(model, mesh, precision)
    model.to_empty(device=mesh.device_type)
    with together("load"), torch.no_grad():
        for name, parameter in model.named_parameters():
            fill(parameter, checkpoint.tensors[name])
    return model


def fill(parameter: Any, stored: CheckpointTensor) -> None:
    """Read the rows of a parameter that this process holds: those that `torch.chunk` would give it."""
    local, mesh = parameter.to_local(), parameter.device_mesh
    dimension = mesh.ndim - 1
    rows = -(-parameter.shape[0] // mesh.size(dimension))
    begin = at = mesh.get_local_rank(dimension) * rows
    if local.numel() == 0:
        return
    for piece in stored.pieces(start=begin, stop=begin + len(local)):
        local[at - begin : at - begin + len(piece)].copy_(cast(piece, local.dtype, stored.place))
        at += len(piece)


def is_sharded_model(model: Model) -> bool:
    """Whether several processes hold the weights, or one does as DTensors."""
    return any(hasattr(module, "reshard") for module in model.modules()) or any(
        hasattr(parameter, "full_tensor") for parameter in model.parameters()
    )


def reshard(model: nn.Module) -> None:
    """Register the sharded parameters, which are the ones that optimisers change, where gathered ones are registered."""
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, "reshard"):
            module.reshard()


def gathered_entry(name: str, tensor: Any) -> Entry:
    """A sharded tensor, to be written by process 0. Every process must take its pieces at the same time."""

    def pieces() -> Iterator[Tensor]:
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        yield whole.detach().cpu()

    return Entry(name, tensor.dtype, tuple(tensor.shape), pieces)


def after(step: Callable[[], object], entries: Sequence[Entry]) -> list[Entry]:
    """The same entries, each with a `step` before its pieces are taken."""

    def pieces(entry: Entry) -> Iterable[Tensor]:
        step()
        yield from entry.pieces()

    return [replace(entry, pieces=lambda entry=entry: pieces(entry)) for entry in entries]  # type: ignore[misc]


def go_on() -> None:
    """Process 0 tells the others that it goes on to the next tensor."""
    from pairform.assemblies.modeling.processes import said_by_first

    said_by_first(GOES_ON)


def follow() -> None:
    """Another process hears whether process 0 goes on.

    Raises:
        PeerError: process 0 could not write the folder.
    """
    from pairform.assemblies.modeling.processes import PeerError, said_by_first

    if said_by_first(0) == FAILED:
        raise PeerError(Problem("save", "an error in process 0", "no error in any process"))


def save_sharded(
    output: Output,
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    companions: str | Path | None,
    settings: GenerationSpec,
) -> None:
    """Process 0 writes the folder; the others gather each tensor with it. Every process calls this.

    Raises:
        SpecError: transformers cannot express the spec.
        CheckpointError, OutputError: the companions cannot be read, or the folder cannot be written; in the other processes a
            `PeerError`.
    """
    from torch import distributed

    entries = [gathered_entry(name, tensor) for name, tensor in tensors.items()]
    if distributed.get_rank() == 0:
        with writing():
            beside = companions_in(companions, settings)
            output.write(spec, after(go_on, entries), {"origin": "save"}, beside)
    else:
        take_part(output.named(spec, after(follow, entries)), output.max_shard_size)


@contextmanager
def writing() -> Iterator[None]:
    """Process 0 writes its entries in the block. Afterwards the others hear whether that succeeded."""
    from pairform.assemblies.modeling.processes import said_by_first

    try:
        yield
    except BaseException:
        said_by_first(FAILED)
        raise
    said_by_first(GOES_ON)


def take_part(entries: Sequence[Entry], max_shard_size: int | str) -> None:
    """What the other processes do meanwhile: gather each tensor in the order in which process 0 writes them.

    Raises:
        PeerError: process 0 could not write the folder.
    """
    for _, shard in arranged(entries, max_shard_size):
        for entry in shard:
            for _ in entry.pieces():
                pass
    follow()
