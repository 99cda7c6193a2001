"""What a run will take, from its recipe and the model's configuration alone: memory, FLOPs, time and disk."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import lcm, prod
from pathlib import Path
from typing import Any, Literal

from pairform.assemblies.analysis.inspection import inspect
from pairform.assemblies.modeling.base import layer_numbers
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, Problem, SpecError, merge_patch
from pairform.training.adaptation.preparation import check_model, spec_in, spec_of
from pairform.training.adaptation.recipe import Recipe, read_recipe
from pairform.training.adaptation.teacher import check_teacher
from pairform.training.costs.accelerators import local_accelerator, peak_flops
from pairform.training.costs.memory import (
    Memory,
    Setting,
    checkpoint_bytes,
    gathered,
    kept_bytes,
    measured_activations,
    memory_of,
    teacher_bytes,
)
from pairform.training.costs.throughput import longest_rows, read_lengths, row_flops
from pairform.training.data.corpus.manifest import MANIFEST
from pairform.training.data.corpus.shards import Shards
from pairform.training.data.stream.layout import check_objective
from pairform.training.optimization.phases import PhaseSpec, matches
from pairform.training.parallel import check_shape

MFU = 0.4
"""Usual for dense models of this size on current accelerators, with attention in fused kernels."""
DAY = 86_400
CHECKPOINTING: tuple[Literal["none", "all"], ...] = ("none", "all")


@dataclass(frozen=True)
class RunPlan:
    """What a run will take. Bytes are of one process, except on disk; FLOPs are of all processes together.

    parameters:     by purpose, as `inspect` counts them.
    phases:         steps, and the number of parameters that train in them.
    rows:           of the global batch, of a process, and of one forward pass; and the forward passes of a step.
    tokens:         source and target tokens of a step, of the run, and of the data; None for data that is not prepared.
    memory:         of a step.
    checkpointing:  activations without and with checkpointing of all layers.
    gathered:       the groups of parameters that FSDP2 gathers: what is in no layer, and layers.
    flops:          of a token, of a step, of what activation checkpointing recomputes in a step, of the run, and of a teacher
                    in a step.
    peak, mfu:      FLOP/s of one accelerator, and the part of it that the run reaches; a peak of None is not known.
    checkpoint_bytes, checkpoints: of one checkpoint, and how many are on the disk at a time.
    """

    processes: int
    shards: int
    steps: int
    parameters: Mapping[str, int]
    phases: tuple[Mapping[str, int], ...]
    rows: Mapping[str, int]
    tokens: Mapping[str, int | None]
    memory: Memory
    checkpointing: Mapping[str, int]
    gathered: Mapping[str, int]
    flops: Mapping[str, float]
    accelerator: str | None
    peak: float | None
    mfu: float
    checkpoint_bytes: int
    checkpoints: int

    @property
    def epochs(self) -> float | None:
        """How often the run reads the data."""
        there = self.tokens["data"]
        return (self.tokens["run"] or 0) / there if there else None

    @property
    def days(self) -> float | None:
        """Days at the MFU, without evaluation and checkpoints. Recomputed FLOPs do not count, as in the MFU of metrics; a
        teacher's do."""
        if self.peak is None:
            return None
        return (self.flops["run"] + self.steps * self.flops["teacher"]) / (self.peak * self.processes * self.mfu) / DAY

    def document(self) -> dict[str, Any]:
        """Plain data, as `pairform adapt plan --json` prints it."""
        days = self.days
        return asdict(self) | {
            "memory": asdict(self.memory) | {"total": self.memory.total},
            "epochs": self.epochs,
            "days": days,
            "gpu_days": None if days is None else days * self.processes,
            "disk_bytes": self.checkpoint_bytes * self.checkpoints,
        }


def plan_run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    patch: Mapping[str, Any] | None = None,
    processes: int | None = None,
    mfu: float = MFU,
    peak_tflops: float | None = None,
    accelerator: str | None = None,
) -> RunPlan:
    """Estimate what a run will take. No weight is read: of a model on the hub, only JSON files are downloaded.

    Args:
        recipe: A recipe, its document, or a JSON file. The data need not be prepared yet.
        patch: A merge patch on it.
        processes: Number of processes. Default: as many as the recipe's `parallel` names, or one.
        mfu: Part of the peak FLOP/s that the run reaches.
        peak_tflops: Peak TFLOP/s of one accelerator. Default: the recipe's, or that of `accelerator`.
        accelerator: A name of `PEAKS`. Default: this machine's.

    Raises:
        PairformError: the recipe does not fit its model or the processes, or an argument is invalid.
    """
    read, place = read_recipe(recipe)
    if patch:
        read = Recipe.read(merge_patch(read.document(), patch, Recipe))
    if not 0 < mfu <= 1:
        raise InputError(Problem("mfu", f"{mfu:g}", "a number above 0, and at most 1"))
    shard, replicate = read.parallel.shard, read.parallel.replicate
    world = processes or replicate * (shard if isinstance(shard, int) else 1)
    shards = check_shape(world, shard, replicate)
    spec, objective = spec_of(read), read.data.objective
    rows = read.batch.tokens // objective.window
    problems = [*check_objective(objective, spec), *check_model(read, spec), *check_rows(read, rows, world)]
    teacher = None
    if read.distillation is not None:
        teacher = spec_in(read.distillation.teacher)
        problems += check_teacher(teacher, spec)
    if problems:
        raise SpecError(problems)
    micro = min(read.batch.micro, rows // world)
    cuda = read.device != "cpu"
    setting = Setting(
        read.precision,
        read.optimizer,
        micro,
        [read_lengths(spec, objective, lengths) for lengths in longest_rows(objective)],
        shards=shards,
        processes=world,
        ema=read.ema is not None,
        frozen=read.frozen,
        checkpointed=read.activation_checkpointing,
        cuda=cuda,
    )
    measured = measured_activations(spec, setting)
    row = row_flops(spec, objective)
    depths = [stack.depth for stack in spec.stacks.values()]
    recomputed = sum(len(layer_numbers(setting.checkpointed, depth)) for depth in depths) / sum(depths)
    step = rows * row.tokens * row.per_token()
    name = accelerator or (local_accelerator() if cuda else None)
    given = peak_tflops or (None if accelerator else read.logging.peak_tflops)
    return RunPlan(
        processes=world,
        shards=shards,
        steps=read.total_steps,
        parameters=inspect(spec, source_length=1, target_length=1).parameters,
        phases=tuple(phases_of(read, spec)),
        rows={"batch": rows, "process": rows // world, "micro": micro, "passes": -(-rows // world // micro)},
        tokens={
            "step": round(rows * row.tokens),
            "run": round(rows * row.tokens) * read.total_steps,
            "data": prepared_tokens(place / read.data.shards),
        },
        memory=replace(memory_of(spec, setting, measured), teacher=0 if teacher is None else teacher_bytes(teacher, setting)),
        checkpointing={each: max(kept_bytes(spec, setting, found, each) for found in measured) for each in CHECKPOINTING},
        gathered=gathered(spec, setting),
        flops={
            "token": row.per_token(),
            "step": step,
            "recomputed": rows * row.layers * recomputed,
            "run": step * read.total_steps,
            "teacher": 0.0 if teacher is None else rows * row_flops(teacher, objective).forward,
        },
        accelerator=None if given else name,
        peak=1e12 * given if given else None if name is None else peak_flops(name, read.precision),
        mfu=mfu,
        checkpoint_bytes=checkpoint_bytes(spec, setting),
        checkpoints=checkpoints_of(read),
    )


def check_rows(recipe: Recipe, rows: int, world: int) -> Iterator[Problem]:
    window = recipe.data.objective.window
    if not rows:
        yield Problem("batch.tokens", f"{recipe.batch.tokens:,}", f"at least one row: {window:,} tokens")
    elif rows % world:
        yield Problem("batch.tokens", f"{rows} rows for {world} processes", "a number of rows that they share equally")


def phases_of(recipe: Recipe, spec: ModelSpec) -> Iterator[dict[str, int]]:
    """The steps of each phase, and the parameters that train in it; the last is without patterns."""
    counts = {name: prod(each.shape) for name, each in parameters_of(spec).items() if not matches(name, recipe.frozen)}
    rest = recipe.total_steps - sum(phase.steps for phase in recipe.phases)
    phases: list[tuple[PhaseSpec | None, int]] = [(phase, phase.steps) for phase in recipe.phases]
    for phase, steps in [*phases, (None, rest)]:
        if steps:
            trained = sum(count for name, count in counts.items() if phase is None or matches(name, phase.train))
            yield {"steps": steps, "trained": trained}


def prepared_tokens(folder: Path) -> int | None:
    """Tokens of the training data; None if it is not prepared."""
    if not (folder / MANIFEST).is_file():
        return None
    found = Shards.open(folder)
    pairs = sum(int(part.positions[-1]) for stream in found.train_pairs for part in stream.parts)
    return sum(stream.length for stream in found.train) + pairs


def checkpoints_of(recipe: Recipe) -> int:
    """Checkpoints on the disk at a time, with the one that is being written."""
    settings, steps = recipe.checkpoint, recipe.total_steps
    made = -(-steps // settings.every)
    milestones = 0 if settings.keep_every is None else steps // lcm(settings.every, settings.keep_every)
    return min(settings.keep + 1 + milestones, made)
