"""Checkpoints of a run: model, optimisers and the loop's state, written by all processes, resumed on any number of them.

Tensors are stored by torch.distributed.checkpoint (DCP), everything else as JSON in `state.json`. Nothing is read as a pickle
that could run code: see `checkpoint_metadata`.
"""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from pairform.assemblies.checkpoints.sharded import reshard
from pairform.assemblies.checkpoints.unwrapping import transparent
from pairform.assemblies.checkpoints.writing.folder import check_space
from pairform.assemblies.modeling.processes import PeerError, grouped, patient_group, said_by_first, together
from pairform.blocks.functional.dtypes import is_sharded
from pairform.registry import CheckpointError, InputError, OutputError, Problem, SpecError, read_json, shorten
from pairform.training.checkpoint_folders import checkpoint_path, clear, latest, new_checkpoint, partial_path, prune
from pairform.training.checkpoint_metadata import REMEDY, Reader, TensorPlanner, Writer, length_of, read_metadata, shapes
from pairform.training.checkpoint_targets import Target

__all__ = ["latest", "load_checkpoint", "prune", "resume_step", "save_checkpoint"]

STATE = "state.json"
STATE_BYTES = 1 << 28
"""Largest state.json that is read."""
REFERENCE = "$tensor"
"""The only key of the object that stands for a tensor in state.json."""
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
    group = patient_group() if grouped() else None
    reader = Reader(path, metadata)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            load(tensors, storage_reader=reader, planner=TensorPlanner(), process_group=group, no_dist=group is None)
    except CheckpointException as error:
        failed(error, CheckpointError, path)
    for index, each in enumerate(listed(optimizer)):
        target.restore(each, unpacked(document["groups"][index], tensors), tensors)
    state: dict[str, Any] = unpacked(document["state"], tensors)
    return state


def read_state(path: Path, step: int) -> dict[str, Any]:
    """The document in `state.json`, after a look at the files that it lists.

    Raises:
        CheckpointError: it cannot be read, is of another step, or a file is missing or has another length.
    """
    try:
        document = read_json(path / STATE, STATE_BYTES)
    except SpecError as error:
        raise CheckpointError([replace(problem, remedy=REMEDY) for problem in error.problems]) from None
    files, groups = document.get("files"), document.get("groups")
    plain = isinstance(groups, list) and all(
        isinstance(each, list) and all(isinstance(g, dict) for g in each) for each in groups
    )
    if document.get("step") != step or not isinstance(files, dict) or not isinstance(document.get("state"), dict) or not plain:
        raise CheckpointError(Problem(str(path / STATE), "other fields", f"the state after step {step}", REMEDY))
    for name, size in files.items():
        try:
            found = f"{length_of(path, name):,} bytes"
            same = length_of(path, name) == size
        except (OSError, ValueError) as error:
            found, same = getattr(error, "strerror", None) or str(error), False
        if not same:
            raise CheckpointError(Problem(f"{path}: {shorten(name)}", found, f"a file of {shorten(size)} bytes", REMEDY))
    return document


def write(partial: Path, tensors: dict[str, Tensor]) -> None:
    """Write the tensors, each process those that it holds."""
    group = patient_group() if grouped() else None
    try:
        planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that this is one process
            save(tensors, storage_writer=Writer(partial), planner=planner, process_group=group, no_dist=group is None)
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


def packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON. Its tensors are added to `tensors`, by their place."""
    if isinstance(value, Tensor):
        tensors[place] = value.detach()
        return {REFERENCE: place}
    if isinstance(value, Mapping):
        if REFERENCE in value or not all(isinstance(key, str) for key in value):
            raise InputError(Problem(place, "an object with other keys", f"keys that are strings and not {REFERENCE!r}"))
        return {key: packed(item, f"{place}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [packed(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    found = str(value) if isinstance(value, float) else f"a {type(value).__name__}"
    raise InputError(Problem(place, found, "JSON or a tensor"))


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `packed`, with lists for tuples."""
    if isinstance(value, dict):
        if REFERENCE in value:
            return tensors[value[REFERENCE]]
        return {key: unpacked(item, tensors) for key, item in value.items()}
    return [unpacked(item, tensors) for item in value] if isinstance(value, list) else value


def references(value: Any) -> Iterator[str]:
    """The names of the tensors that a packed value refers to."""
    if isinstance(value, dict) and REFERENCE in value:
        yield str(value[REFERENCE])
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references(item)
