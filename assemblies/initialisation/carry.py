"""Rebuilding a model with another spec, keeping every weight that still fits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, common_dtype, open_checkpoint
from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder
from pairform.assemblies.checkpoints.reading.safetensors_file import CheckpointTensor
from pairform.assemblies.checkpoints.save import load
from pairform.assemblies.checkpoints.unwrapping import spec_tensors, unwrapped
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.assemblies.initialisation.entries import entry
from pairform.assemblies.initialisation.execute import write_plan
from pairform.assemblies.initialisation.options import DtypeName, Options
from pairform.assemblies.initialisation.pairing.pair import kept_override, stack_of
from pairform.assemblies.initialisation.pairing.source_layers import with_source_layers
from pairform.assemblies.initialisation.plan import Plan, Role
from pairform.assemblies.initialisation.planning import plan_by
from pairform.assemblies.initialisation.rules.carry import CarryRules
from pairform.assemblies.initialisation.rules.stacks import PARTS, Part
from pairform.assemblies.modeling.build import parameters_of, skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.depth_dependent import Move, with_moved_values
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, Problem

MEMORY = ModelFolder(Path("memory"))
"""The folder of a model that is in none, for errors."""


@dataclass(frozen=True)
class MemoryTensor(CheckpointTensor):
    """A tensor in memory."""

    tensor: Tensor

    @property
    def place(self) -> str:
        return f"{MEMORY.path}: {self.name}"

    def read(self) -> Tensor:
        return self.tensor

    def pieces(self, rows: int | None = None, stop: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """As `CheckpointTensor.pieces`; by default all at once."""
        yield from torch.split(self.tensor[start:stop], rows or max(len(self.tensor), 1))


def carry(
    source: nn.Module | str | Path,
    spec: Ref | None = None,
    *,
    patch: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Model, Plan]:
    """Rebuild a model with another spec, keeping the weights that fit, bit for bit.

    Key and value heads are averaged to fewer and repeated to more; vocabularies and learned positions lose or gain rows.
    Weights are kept under a branch's new name, and where cross-attention becomes merged attention or the reverse. All others
    are drawn as `build(spec, seed=seed)` draws them. Plan and provenance list every tensor of the source with its target, or
    with the reason why it has none.

    Args:
        source: a model, which is not changed, or a folder or hub id, `owner/name` or `owner/name@revision`.
        spec: the new spec; None keeps the source's.
        patch: a JSON merge patch on it.
        seed: of newly drawn weights.
        out: a folder to write, if the source is on disk: tensor by tensor, so that memory does not grow with the model. The
            returned model is loaded from it.
        max_shard_size, overwrite, progress: of `out`, as for `convert`.

    Returns:
        The new model, and the plan of its weights.

    Raises:
        SpecError: the new spec is invalid.
        CheckpointError: the source cannot be read.
        InputError: `out` for a model in memory, or a model that is no plain model of its spec.
        OutputError: `out` cannot be written.
    """
    if isinstance(source, nn.Module):
        source = unwrapped(source)
        if out is not None:
            raise InputError(Problem("out", "a folder to write, of a model in memory", "a source on disk", "Use save."))
        checkpoint = in_memory(source)
    else:
        checkpoint = open_checkpoint(source)
    plan = plan_carry(checkpoint, spec, patch=patch, seed=seed, path=str(source) if not isinstance(source, Model) else "")
    if out is not None:
        write_plan(plan, {"model": checkpoint}, Output(out, "pairform", max_shard_size, overwrite, progress))
        return load(out), plan
    device = next(source.parameters()).device if isinstance(source, Model) else torch.device("cpu")
    model = build_planned(plan, {"model": checkpoint}, device)
    model.generation = source.generation if isinstance(source, Model) else checkpoint.files.settings
    return model, plan


def in_memory(model: Model) -> Checkpoint:
    """A model as a checkpoint."""
    tensors = {
        name: MemoryTensor(name, parameter.dtype, tuple(parameter.shape), parameter.detach().cpu())
        for name, parameter in spec_tensors(model).items()
    }
    return Checkpoint(MEMORY, model.spec, tensors, common_dtype(parameters_of(model.spec), tensors, {}))


def plan_carry(
    checkpoint: Checkpoint,
    spec: Ref | None = None,
    *,
    patch: Mapping[str, Any] | None = None,
    patched: bool | None = None,
    seed: int = 0,
    dtype: DtypeName | None = None,
    path: str = "",
) -> Plan:
    """Plan a new model from a checkpoint's tensors.

    Args:
        checkpoint, spec, patch, seed: as for `carry`.
        patched: whether `spec` is a patched form of the checkpoint's. Its overrides then stay with the layers that they had.
            Default: if `spec` is None.
        dtype: of the new model. Default: the checkpoint's.
        path: where `execute` finds the checkpoint.
    """
    target = load_spec(checkpoint.spec if spec is None else spec, patch)
    options = Options.read({"seed": seed, "dtype": dtype})
    moves: dict[Part, Move] = {}
    for part in PARTS:
        if part in target.stacks:
            name, stack = stack_of(checkpoint.spec, part)
            # layer i comes from layer i, as far as both stacks reach
            moves[part] = Move(checkpoint.spec, name, tuple(range(min(target.stacks[part].depth, stack.depth))))
    if spec is None if patched is None else patched:
        target = with_kept_overrides(target, moves)
    target = with_moved_values(with_kept_sources(target, moves), moves)
    rules = {part: CarryRules(part, "model", target, checkpoint, move, options) for part, move in moves.items()}
    return plan_by(rules, {"model": checkpoint}, {"model": path})


def with_kept_overrides(target: ModelSpec, moves: Mapping[Part, Move]) -> ModelSpec:
    """`target` with its overrides on the same layers as in the source if the depth differs, also those counted from the end."""
    document = target.document()
    for part, move in moves.items():
        overrides, old = target.stacks[part].overrides, move.stack
        if target.stacks[part].depth != old.depth and overrides == old.overrides:
            on_kept = (kept_override(override, list(move.layers), old.depth) for override in overrides)
            document[part]["overrides"] = [override for override in on_kept if override is not None]
    return target if document == target.document() else ModelSpec.read(document)


def with_kept_sources(target: ModelSpec, moves: Mapping[Part, Move]) -> ModelSpec:
    """`target` with cross-attention that reads the same encoder layers as in its source, as far as they are kept."""
    if target.encoder is None or target.decoder is None:
        return target
    document = target.document()
    old, kept = document["decoder"], moves["encoder"]
    encoder = [*kept.layers, *[None] * (target.encoder.depth - len(kept.layers))]
    document["decoder"] = with_source_layers(old, moves["decoder"], encoder, kept.stack.depth, strict=False)
    return target if document["decoder"] == old else ModelSpec.read(document)


def build_planned(plan: Plan, checkpoints: Mapping[Role, Checkpoint], device: torch.device) -> Model:
    """The planned model in memory, with no tensor shared with its sources."""
    model = skeleton(plan.spec)
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        for row in plan.targets:
            pieces = [piece.reshape(-1) for piece in entry(row, checkpoints, plan.options.seed).pieces()]
            state[row.target] = torch.cat(pieces).reshape(row.shape).to(device)
    model.load_state_dict(state, assign=True, strict=False)  # a tied tensor has one name in `state` and two in the model
    return model
