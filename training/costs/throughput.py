"""FLOPs of a training step, and how fast a run computes them."""

from dataclasses import dataclass

import torch

from pairform.assemblies.analysis.inspection import Inspection, inspect
from pairform.assemblies.specs.model import ModelSpec
from pairform.training.data.batches import lengths_read
from pairform.training.data.objectives import CausalLM, Lengths, Masked, Objective, PrefixLM, SequencePairs, SpanCorruption

TRAINING = 3
"""FLOPs of forward and backward pass in those of the forward pass: the gradients of a product are two products."""


def row_lengths(objective: Objective) -> list[tuple[float, Lengths]]:
    """Source and target tokens of a whole row of each kind, with its share of the rows. One stack reads the first number."""
    if isinstance(objective, SpanCorruption):
        weights = [denoiser.weight for denoiser in objective.denoisers]
        return [(weight / sum(weights), each) for weight, each in zip(weights, objective.lengths, strict=True)]
    if isinstance(objective, Masked | CausalLM):
        return [(1.0, (objective.window, 0))]
    if isinstance(objective, PrefixLM) and objective.split == "uniform":
        return [(1.0, (objective.window - objective.window // 2, objective.window // 2))]
    assert isinstance(objective, PrefixLM | SequencePairs), "all objectives"
    return [(1.0, (objective.source, objective.target))]


def longest_rows(objective: Objective) -> list[Lengths]:
    """Source and target tokens of the rows that take the most memory, one of which is the largest."""
    lengths = objective.lengths if isinstance(objective, PrefixLM | SpanCorruption) else [row_lengths(objective)[0][1]]
    return list(dict.fromkeys([max(lengths), max(lengths, key=lambda each: (each[1], each[0]))]))


def read_lengths(spec: ModelSpec, objective: Objective, lengths: Lengths) -> Lengths:
    """The tokens that an encoder and a decoder read of a row: `source_length` and `target_length` of `inspect`."""
    if not objective.generates:
        return lengths[0], lengths[0]
    return lengths_read(spec, lengths)


@dataclass(frozen=True)
class RowFlops:
    """Mean FLOPs of the forward pass over one row, and the part of them in layers.

    tokens: source and target tokens of the row.
    """

    forward: float
    layers: float
    tokens: float

    def per_token(self) -> float:
        """FLOPs of forward and backward pass for each source or target token, without recomputation."""
        return TRAINING * self.forward / self.tokens


def row_flops(spec: ModelSpec, objective: Objective) -> RowFlops:
    """Count the FLOPs of a whole row.

    Packed documents count as one long document, and masked scores as if they were computed, as is usual for the model FLOPs
    utilisation (PaLM, Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Frozen parameters count as trained.
    """
    forward = layers = tokens = 0.0
    for share, lengths in row_lengths(objective):
        source, target = read_lengths(spec, objective, lengths)
        found = inspect(spec, source_length=source, target_length=target, dtype=torch.bfloat16)
        forward += share * found.flops["total"]
        layers += share * in_layers(found)
        tokens += share * sum(lengths)
    return RowFlops(forward, layers, tokens)


def in_layers(found: Inspection) -> int:
    """FLOPs of a stack's layers, all stacks together."""
    return sum(part.flops for stack in found.tree.parts for part in stack.parts if part.name == "layers")


@dataclass
class Throughput:
    """How fast a run computes, from one line of metrics to the next.

    per_token: FLOPs of a token, without recomputation.
    peak:      FLOP/s of all devices of the run together; None: unknown.
    tokens, seconds: those up to the last line.
    """

    per_token: float
    peak: float | None
    tokens: int = 0
    seconds: float = 0.0

    def since(self, tokens: int, seconds: float) -> dict[str, float]:
        """The figures of a line of metrics, up to which the run has trained on so many tokens in so many seconds."""
        elapsed = max(seconds - self.seconds, 1e-9)
        rate = (tokens - self.tokens) / elapsed
        self.tokens, self.seconds = tokens, seconds
        found = {"tokens_per_second": rate, "flops_per_second": rate * self.per_token}
        return found if self.peak is None else found | {"mfu": rate * self.per_token / self.peak}
