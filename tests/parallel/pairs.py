"""Small models of every kind that is sharded, and batches with another number of labels in every row."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import pairform
from tests.small_pairs import sharing_pair, small_pair, tokens
from tests.small_vision import IMAGE, TOKENS, document, pixels

IGNORED = -100
ROWS, SOURCE, TARGET = 8, 10, 9
Batch = dict[str, Tensor]


def t5() -> pairform.ModelSpec:
    """Three layers that share a position table in each stack, without dropout."""
    spec = pairform.load_spec("t5-v1.1-small")
    small: dict[str, Any] = {"vocabulary": 97, "initializer_range": 0.3}
    for name, stack in spec.stacks.items():
        attention, other = {"heads": 4, "head_dim": 8, "dropout": 0.0}, {"hidden": 48, "dropout": 0.0}
        branches = {branch: attention if "attention" in branch else other for branch in stack.layer.present}
        small[name] = {"width": 32, "depth": 3, "dropout": 0.0, "layer": {"branches": branches, "dropout": 0.0}}
    return pairform.patch(spec, small)


def unequal() -> pairform.ModelSpec:
    return pairform.patch(small_pair(depth=1), {"encoder": {"width": 48, "depth": 3}})


def pictures() -> dict[str, Any]:
    return document("encoder_decoder", frozen=False) | {"vocabulary": 97, "initializer_range": 0.3}


SPECS: Mapping[str, Callable[[], Any]] = {
    "t5gemma": small_pair,
    "t5gemma2": lambda: small_pair("t5gemma2-270m-270m"),
    "t5": t5,
    "unequal": unequal,
    "shared keys": sharing_pair,
    "shared keys, merged": lambda: sharing_pair(merged=True),
    "pictures": pictures,
}


def batch(kind: str, dtype: torch.dtype = torch.float32) -> Batch:
    """Eight rows. Pictures are in the first three rows only, so that one of two processes has none."""
    source, labels = tokens(1, rows=ROWS, length=SOURCE), tokens(2, rows=ROWS, length=TARGET)
    labels = labels.masked_fill(torch.arange(TARGET) > torch.arange(ROWS)[:, None], IGNORED)
    made = {"input_ids": source, "labels": labels}
    if kind == "pictures":
        source[source == IMAGE] = IMAGE + 1
        source[:3, 2 : 2 + TOKENS] = IMAGE
        torch.manual_seed(0)
        made["pixel_values"] = pixels(3).to(dtype)
    return made


def part(whole: Batch, rows: slice) -> Batch:
    """Some rows of a batch, with their pictures."""
    taken = {name: tensor[rows] for name, tensor in whole.items()}
    if "pixel_values" in whole and not len(taken["pixel_values"]):
        del taken["pixel_values"]
    return taken


def count(whole: Batch) -> int:
    return int(whole["labels"].ne(IGNORED).sum())


def full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gradients(model: pairform.Model) -> dict[str, Tensor]:
    return {name: full(each.grad) for name, each in model.named_parameters() if each.grad is not None}
