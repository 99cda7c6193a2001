"""Checkpoints of a run: model, optimisers and the loop's state, written by all processes, resumed on any number of them.

Tensors are stored by torch.distributed.checkpoint (DCP), everything else as JSON in `state.json`. Nothing is read as a pickle
that could run code, see `metadata`, and no tensor is larger in memory than its file, see `records`.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from pairform.assemblies.checkpoints.sharded import reshard
from pairform.assemblies.checkpoints.unwrapping import transparent
from pairform.assemblies.checkpoints.writing.folder import check_space
from pairform.assemblies.modeling.processes import PeerError, grouped, patient_group, said_by_first, together
from pairform.blocks.functional.dtypes import is_sharded
from pairform.registry import CheckpointError, InputError, OutputError, Problem, shorten
from pairform.training.checkpoints.folders import checkpoint_path, clear, latest, new_checkpoint, partial_path, prune
from pairform.training.checkpoints.metadata import REMEDY, length_of, read_metadata, shapes
from pairform.training.checkpoints.records import ContiguousPlanner, Reader, Writer
from pairform.training.checkpoints.state import STATE, packed, read_state, references, unpacked
from pairform.training.checkpoints.targets import Target

__all__ = ["latest", "load_checkpoint", "load_weights", "prune", "resume_step", "save_checkpoint"]

Optimizers: TypeAlias = Optimizer | Sequence[Optimizer]


def resume_step(folder: Path) -> int | None:
    """The step to resume from, the same in every process: that of the newest whole checkpoint. Removes unfinished ones.

    Call it before training begins, in every process.
    """
    with together("resume"):
        if not grouped() or torch.distributed.get_rank() == 0:
            clear(folder)
    newest = latest(folder)
    if not grouped():
        return newest
    step = said_by_first(-1 if newest is None else newest)
    return None if step < 0 else step


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: Optimizers, state: Mapping[str, Any]) -> None:
    """Write `folder/step-N`, in every process. It appears whole or not at all.

    Args:
        folder: of the run's checkpoints.
        step: the number of finished steps.
        model: a model, sharded or not.
        optimizer: its optimisers, each of which trains parameters of its own.
        state: JSON and tensors, nested in objects and lists, equal in every process but for sharded tensors.

    Raises:
        InputError: `state` holds other values.
        OutputError: the checkpoint cannot be written; in the other processes a `PeerError`.
    """
    reshard(model)
    tensors: dict[str, Tensor] = {}
    document: dict[str, Any] = {"step": step}
    first = not grouped() or torch.distributed.get_rank() == 0
    partial = partial_path(folder, step)
    with ExitStack() as publishing:
        with together("checkpoint"):
            groups = [groups_of(each, model) for each in listed(optimizer)]
            document |= {"state": packed(state, "state", tensors), "groups": packed(groups, "groups", tensors)}
            tensors |= training_tensors(model, listed(optimizer))
            if first:
                size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
                check_space(partial, size, "for the checkpoint")
                publishing.enter_context(new_checkpoint(folder, step))
        write(partial, tensors)
        with together("checkpoint"):
            if first:
                read_metadata(partial)  # each process has written its files where this one sees them
                names = sorted(path.name for path in partial.iterdir())
                document["files"] = {name: length_of(partial, name) for name in names}
                (partial / STATE).write_text(json.dumps(document, allow_nan=False, indent=1) + "\n", "utf-8")
            publishing.close()


def load_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: Optimizers) -> dict[str, Any]:
    """Read `folder/step-N` into a model and its optimisers, in every process. Returns the state that was saved.

    The number of processes may be another than when it was saved.

    Raises:
        CheckpointError: the checkpoint is damaged, or is not of this model and these optimisers.
    """
    reshard(model)
    path = checkpoint_path(folder, step)
    with together("checkpoint"):
        document = read_state(path, step)
        metadata = read_metadata(path)
        target = Target(path, shapes(metadata), names_of(model), listed(optimizer))
        tensors = target.tensors(document["groups"], set(references([document["state"], document["groups"]])))
    read(path, metadata, tensors)
    for index, each in enumerate(listed(optimizer)):
        target.restore(each, unpacked(document["groups"][index], tensors), tensors)
    state: dict[str, Any] = unpacked(document["state"], tensors)
    return state


def load_weights(folder: Path, step: int, model: nn.Module, place: str = "model") -> None:
    """Read only the weights of `folder/step-N`, in every process.

    place: "model", or the place of other tensors by the parameters' names, such as "state.average".

    Raises:
        CheckpointError: the checkpoint is damaged, or is not of this model.
    """
    reshard(model)
    path = checkpoint_path(folder, step)
    with together("checkpoint"):
        read_state(path, step)
        metadata = read_metadata(path)
        target = Target(path, shapes(metadata), names_of(model), [])
        if problems := list(target.missing(place)):
            raise CheckpointError(problems)
    read(path, metadata, {f"{place}.{name}": parameter.detach() for name, parameter in target.parameters.items()})


def read(path: Path, metadata: Metadata, tensors: dict[str, Tensor]) -> None:
    """Read the tensors, each process the parts that it holds."""
    group, reader = patient_group() if grouped() else None, Reader(path, metadata)
    try:
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that this is one process
            load(tensors, storage_reader=reader, planner=planner, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        failed(error, CheckpointError, path)


def write(partial: Path, tensors: dict[str, Tensor]) -> None:
    """Write the tensors, each process those that it holds."""
    group = patient_group() if grouped() else None
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that this is one process
            save(
                tensors, storage_writer=Writer(partial), planner=ContiguousPlanner(), process_group=group, no_dist=group is None
            )
    except CheckpointException as error:
        failed(error, OutputError, partial)


def failed(error: Any, kind: type[OutputError] | type[CheckpointError], path: Path) -> NoReturn:
    """Raise what went wrong in the first process that failed, there; in the others a `PeerError`."""
    rank = min(error.failures)
    cause = error.failures[rank][0]
    if grouped() and torch.distributed.get_rank() != rank:
        raise PeerError(Problem("checkpoint", f"an error in process {rank}", "no error in any process"))
    found = getattr(cause, "strerror", None) or shorten(str(cause))
    if kind is OutputError:
        raise OutputError(Problem(str(path), found, "a folder that can be written"))
    raise CheckpointError(Problem(str(path), found, "a whole checkpoint", REMEDY))


def listed(optimizer: Optimizers) -> list[Optimizer]:
    return [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)


def names_of(model: nn.Module) -> dict[Tensor, str]:
    """The name of each parameter, out of the wrappers of torch.compile and activation checkpointing."""
    return {parameter: transparent(name) for name, parameter in model.named_parameters()}


def groups_of(optimizer: Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """The parameter groups of an optimiser, with names for parameters."""
    names = names_of(model)
    return [{**group, "params": [names[parameter] for parameter in group["params"]]} for group in optimizer.param_groups]


def training_tensors(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The tensors of a model and its optimisers."""
    names = names_of(model)
    tensors: dict[str, Tensor] = {f"model.{name}": parameter.detach() for parameter, name in names.items()}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if not isinstance(value, Tensor) or (is_sharded(value) and value.shape != parameter.shape):
                    expected = "a tensor, of the parameter's shape if it is sharded"
                    raise InputError(Problem(f"optimizer: {key}", f"a {type(value).__name__}", expected))
                tensors[f"optimizer.{names[parameter]}.{key}"] = value
    return tensors
