"""Tensor parallelism: which projections of a model several processes may share, as styles of PyTorch's `parallelize_module`."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.modeling.build import skeleton
from pairform.blocks.attention.cross_attention import CrossAttention
from pairform.blocks.attention.merged_attention import MergedAttention
from pairform.blocks.attention.projections import AttentionHeads
from pairform.blocks.attention.self_attention import OwnSequenceAttention, SelfAttention
from pairform.blocks.feedforward import FeedForward, GatedFeedForward
from pairform.blocks.positions.base import ScoreBias
from pairform.registry import InputError, Problem

QUERIES = ("q_proj", "gate_proj")
"""Outputs by query head; `gate_proj` holds the gates of attention."""
KEYS = ("k_proj", "v_proj", "source_k_proj", "source_v_proj")
NORMS = ("q_norm", "k_norm", "v_norm")


class Columns(ColwiseParallel):
    """Each process computes some of the output channels: those of `parts` heads, or of `parts` channels."""

    def __init__(self, parts: int, word: str) -> None:
        super().__init__()
        self.parts, self.word = parts, word

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        check_divides(self.parts, device_mesh.size(), self.word)
        return super()._apply(module, device_mesh)


class DividedHeads(ParallelStyle):
    """The attention block itself, which then has the heads of one process."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, AttentionHeads)
        module.heads //= device_mesh.size()
        module.kv_heads //= device_mesh.size()
        return module


class SummedGradients(ParallelStyle):
    """Parameters that every process applies to its own heads: their gradients are summed over the processes."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def summed(gradient: Tensor) -> Tensor:
            total = gradient.contiguous().clone()
            distributed.all_reduce(total, group=device_mesh.get_group())
            return total

        for parameter in module.parameters():
            hooked: Any = parameter
            hooked.register_hook(summed)
        return module


def parallel_plan(spec: Ref, processes: int | None = None) -> dict[str, ParallelStyle]:
    """The styles of the projections that processes share, by module name, for `parallelize_module(model, mesh, plan)`.

    Heads of self-attention, cross-attention and merged attention (its keys of both sequences) and the hidden channels of
    feed-forward layers are divided, as in Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053, section 3). Everything else is
    whole in every process: embeddings and the vocabulary, norms, and blocks whose parameters belong to heads in another way
    (score biases, sinks, norms over all heads, latent and differential attention, recurrences, mixtures). Attention blocks that
    share keys are divided all or none. All processes read the same batch with the same random state.

    Args:
        spec: a preset's name, the path of a JSON file or a folder, a document, or a `ModelSpec`.
        processes: how many will share a projection; None leaves the check to `parallelize_module`.

    Raises:
        SpecError: the spec is invalid.
        InputError: the processes do not divide the heads, the key and value heads or the hidden channels.
    """
    plan: dict[str, ParallelStyle] = {}
    model = skeleton(load_spec(spec))
    undivided = undivided_attention(model)
    for name, module in model.named_modules():
        if name not in undivided:
            plan |= {f"{name}.{inner}".removesuffix("."): style for inner, style in styles(module)}
    if processes is not None:
        for name, style in plan.items():
            if isinstance(style, Columns):
                check_divides(style.parts, processes, style.word, name)
    return plan


def undivided_attention(model: nn.Module) -> set[str]:
    """The names of the attention blocks that stay whole: those that cannot be divided, and those that share keys with one."""
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, AttentionHeads)}
    read = {name: keys_of(name, block) for name, block in blocks.items()}
    whole = {read[name] for name, block in blocks.items() if not divides(block)}
    return {name for name in blocks if read[name] in whole}


def keys_of(name: str, block: AttentionHeads) -> str:
    """The name of the block whose keys the block of this name attends to: its own, or that of an earlier layer's."""
    place = block.keys_from if isinstance(block, OwnSequenceAttention) else None
    if place is None:
        return name
    layers = name.rsplit(".", 3)[0]  # of "decoder.layers.3.self_attention.block"
    return f"{layers}.{place[0]}.{place[1]}.block"


def divides(block: AttentionHeads) -> bool:
    """Whether processes may share the heads of a block."""
    if type(block) not in (SelfAttention, CrossAttention, MergedAttention):
        return False
    position = getattr(block, "position", None)
    return block.sinks is None and block.normed != "width" and not isinstance(position, ScoreBias)


def styles(module: nn.Module) -> Iterator[tuple[str, ParallelStyle]]:
    """The styles of the submodules of a block that can be shared, and of the block itself, under an empty name."""
    parts: dict[str, Any] = dict(module.named_children())
    if type(module) in (GatedFeedForward, FeedForward):
        for name in ("gate_proj", "up_proj"):
            if name in parts:
                yield name, Columns(parts[name].out_features, "hidden channels")
        yield "down_proj", RowwiseParallel()
    elif isinstance(module, AttentionHeads):
        for name in QUERIES:
            if name in parts:
                yield name, Columns(module.heads, "heads")
        for name in KEYS:
            if name in parts:
                yield name, Columns(module.kv_heads, "kv_heads")
        for name in NORMS:
            if name in parts:
                yield name, SummedGradients()
        yield "o_proj", RowwiseParallel()
        yield "", DividedHeads()  # last, after the checks of the others


def check_divides(parts: int, processes: int, word: str, name: str = "parallel_plan") -> None:
    if parts % processes:
        remedy = "Use fewer processes for tensor parallelism, and shard over the others."
        raise InputError(Problem(name, f"{parts} {word} for {processes} processes", f"{word} that they divide", remedy))
