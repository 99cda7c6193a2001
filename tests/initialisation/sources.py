"""Sources, and what became of them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairform
from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint

SOURCE_LAYER = "decoder.layers.{}.self_attention.block.{}_proj.weight"


def tensors(folder: Path) -> dict[str, Tensor]:
    """A folder's tensors by our names."""
    return {name: stored.read() for name, stored in open_checkpoint(folder).tensors.items()}


def rows(plan: pairform.Plan) -> dict[str, Any]:
    """A plan's rows by target."""
    return {row.target: row for row in plan.targets}


def through_json(plan: pairform.Plan) -> pairform.Plan:
    return pairform.Plan.read(json.loads(json.dumps(plan.document())))


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
