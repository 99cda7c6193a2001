"""Memory of a training step on one process, from the spec alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from pairform.assemblies.analysis.activations import Activations, Arithmetic, measure_activations
from pairform.assemblies.modeling.base import Layers, layer_numbers
from pairform.assemblies.modeling.build import Parameter, parameters_of
from pairform.assemblies.modeling.sharding import Precision
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.heads.linear_cross_entropy import HELD, LEAST, TILE
from pairform.training.data.objectives import Lengths
from pairform.training.optimization.optimizers import suits_muon
from pairform.training.optimization.phases import matches
from pairform.training.settings import OptimizerSpec

FLOAT32, BFLOAT16 = 4, 2
COPIES = 4
"""Float32 copies of the logits while their loss and its gradient are computed."""


@dataclass(frozen=True)
class Setting:
    """What memory depends on besides the spec.

    shards:       processes that share each copy of the model.
    processes:    all processes.
    ema:          a moving average of the weights is kept.
    frozen:       patterns of parameters that never train.
    checkpointed: layers with activation checkpointing.
    rows:         rows of one forward pass on one process.
    lengths:      tokens that an encoder and a decoder read, of the rows that take the most memory.
    cuda:         on a CUDA device, where norms and attention are fused.
    """

    precision: Precision
    optimizer: OptimizerSpec
    rows: int
    lengths: Sequence[Lengths]
    shards: int = 1
    processes: int = 1
    ema: bool = False
    frozen: tuple[str, ...] = ()
    checkpointed: Layers = "none"
    cuda: bool = True

    @property
    def arithmetic(self) -> Arithmetic:
        if self.precision == "mixed":
            return "bfloat16" if self.processes > 1 else "autocast"
        return self.precision

    @property
    def weight_bytes(self) -> int:
        return BFLOAT16 if self.precision == "bfloat16" else FLOAT32

    @property
    def computed_bytes(self) -> int:
        return FLOAT32 if self.precision == "float32" else BFLOAT16


@dataclass(frozen=True)
class Memory:
    """Bytes on one process at the peak of a step.

    gathered:    parameters that FSDP2 gathers at a time, and their gradients before they are sharded: of all that is in no
                 layer, such as embeddings, and of two layers.
    activations: what the forward pass of a micro-batch keeps for its backward pass.
    working:     the logits of some tokens and the gradient of the output embedding, or the gradients of a layer's activations
                 and what is recomputed of it: whichever is more.
    teacher:     weights of a teacher, and those of it that FSDP2 gathers at a time.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    activations: int
    working: int
    teacher: int = 0

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def memory_of(spec: ModelSpec, setting: Setting, measured: Sequence[Activations] | None = None) -> Memory:
    """Estimate the memory of a step after the first, with all but the frozen parameters trained.

    measured: `measured_activations`, if they are known already.

    Memory of the CUDA context, of fragmentation and of NCCL is not included; compiled layers keep fewer activations.
    """
    parameters = parameters_of(spec)
    sizes = {name: sharded(parameter, setting.shards) for name, parameter in parameters.items()}
    trained = {name: size for name, size in sizes.items() if not matches(name, setting.frozen)}
    weight = setting.weight_bytes
    states = sum(size * moments(name, parameters[name], setting.optimizer) for name, size in trained.items())
    activations, working = largest(spec, setting, measured_activations(spec, setting) if measured is None else measured)
    return Memory(
        weight * sum(sizes.values()),
        weight * sum(trained.values()),
        weight * states,
        FLOAT32 * sum(sizes.values()) if setting.ema else 0,
        sum(gathered(spec, setting).values()) if setting.processes > 1 else 0,
        activations,
        working,
    )


def sharded(parameter: Parameter, shards: int) -> int:
    """Elements of a parameter on the process that has the most: FSDP2 divides the first dimension."""
    return -(-parameter.shape[0] // shards) * prod(parameter.shape[1:])


def moments(name: str, parameter: Parameter, optimizer: OptimizerSpec) -> int:
    """Tensors of the parameter's size and dtype in its optimiser's state."""
    if optimizer.name == "sgd":
        return int(optimizer.momentum > 0)
    muon = optimizer.name == "muon" and suits_muon(name, torch.empty(parameter.shape, device="meta"))
    return 1 if muon else 2


def gathered(spec: ModelSpec, setting: Setting) -> dict[str, int]:
    """Bytes of the groups that FSDP2 gathers: `root`, all that is in no layer, and `layers`, one and the next.

    The gradients of the root and of one layer exist in whole, too, the layer's also in the dtype in which they are summed.
    """
    root, layer = group_sizes(spec)
    computed = setting.computed_bytes
    return {"root": 2 * computed * root, "layers": (3 * computed + setting.weight_bytes) * layer}


def group_sizes(spec: ModelSpec) -> tuple[int, int]:
    """The number of parameters in no layer, and in the largest layer."""
    root, layers = 0, dict[str, int]()
    for name, parameter in parameters_of(spec).items():
        stack, *rest = name.split(".")
        if stack in ("encoder", "decoder") and rest[0] == "layers":
            layers[f"{stack}.{rest[1]}"] = layers.get(f"{stack}.{rest[1]}", 0) + prod(parameter.shape)
        else:
            root += prod(parameter.shape)
    return root, max(layers.values(), default=0)


def teacher_bytes(spec: ModelSpec, setting: Setting) -> int:
    """Bytes of a teacher's weights on a process, without gradients, and of what FSDP2 gathers of them."""
    root, layer = group_sizes(spec)
    held = sum(sharded(parameter, setting.shards) for parameter in parameters_of(spec).values())
    return setting.computed_bytes * (held + (root + 2 * layer if setting.processes > 1 else 0))


def largest(spec: ModelSpec, setting: Setting, measured: Sequence[Activations]) -> tuple[int, int]:
    """Bytes of activations, and bytes used beside them, where both together are the most: at the loss or in the backward
    pass."""
    found = []
    for (source, target), activations in zip(setting.lengths, measured, strict=True):
        loss = loss_bytes(spec, setting, target if spec.decoder is not None else source)
        found.append((kept_bytes(spec, setting, activations, setting.checkpointed), loss))
        # autocast drops its copies of weights at the end of the forward pass
        found.append((activations.kept(setting.checkpointed), activations.working(setting.checkpointed)))
    return max(found, key=lambda pair: pair[0] + pair[1])


def measured_activations(spec: ModelSpec, setting: Setting) -> list[Activations]:
    """The activations for each of the setting's lengths."""
    options: dict[str, Any] = {"arithmetic": setting.arithmetic, "fused": setting.cuda, "frozen": setting.frozen}
    return [
        measure_activations(spec, rows=setting.rows, source_length=source, target_length=target, **options)
        for source, target in setting.lengths
    ]


def kept_bytes(spec: ModelSpec, setting: Setting, activations: Activations, checkpointed: Layers) -> int:
    """Bytes at the end of the forward pass, with activation checkpointing of these layers."""
    return activations.kept(checkpointed) + recast(spec, setting, checkpointed)


def recast(spec: ModelSpec, setting: Setting, checkpointed: Layers) -> int:
    """Bytes of the bfloat16 copies of weights that autocast keeps for checkpointed layers. Others' are activations."""
    if setting.arithmetic != "autocast":
        return 0
    depths = {path: stack.depth for path, stack in spec.stacks.items()}
    total = 0
    for name, parameter in parameters_of(spec).items():
        stack, *rest = name.split(".")
        inside = stack in depths and rest[0] == "layers" and len(parameter.shape) == 2
        if inside and int(rest[1]) in layer_numbers(checkpointed, depths[stack]):
            total += BFLOAT16 * prod(parameter.shape)
    return total


def loss_bytes(spec: ModelSpec, setting: Setting, length: int) -> int:
    """Bytes while the loss is computed: logits of some tokens, and gradients of the hidden states and the output embedding.

    On a CPU only a tile of the logits is in float32 at a time. Autocast also keeps the embedding in bfloat16.
    """
    tied = None if spec.head_tie is None else f"{spec.head_tie}.embedding.weight"
    shapes = [each.shape for name, each in parameters_of(spec).items() if name == tied or name.startswith("head.")]
    table = max(map(prod, shapes), default=0)
    computed, tokens = setting.computed_bytes, setting.rows * length
    logits = min(HELD // computed, tokens * spec.vocabulary)
    wide = COPIES * FLOAT32 * (logits if setting.cuda else min(logits, max(TILE, LEAST * spec.vocabulary)))
    gradients = (table + tokens * table // spec.vocabulary) * computed
    cast = table * (BFLOAT16 + FLOAT32) if setting.arithmetic == "autocast" else 0
    return logits * computed + wide + gradients + cast


def checkpoint_bytes(spec: ModelSpec, setting: Setting) -> int:
    """Bytes of a checkpoint on the disk: weights, the optimiser's states, and a moving average."""
    total = 0
    for name, each in parameters_of(spec).items():
        states = 0 if matches(name, setting.frozen) else moments(name, each, setting.optimizer)
        total += prod(each.shape) * (setting.weight_bytes * (1 + states) + FLOAT32 * setting.ema)
    return total
