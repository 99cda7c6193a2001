"""Decoding in half precision, where queries read whole buffers of the cache: as exact as a pass without a cache."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.merged.pairs import PLACE, VOCABULARY, pair, wide

STEPS = 150
"""Long enough that a window's tokens move to the front of their buffers, and that other buffers are enlarged twice."""
ROPE: dict[str, Any] = {"name": "rope", "theta": 100.0}
POSITIONS = (ROPE, {"name": "alibi"}, {"name": "t5_relative", "buckets": 8, "max_distance": 12, "bidirectional": False})


def case(attention: str, position: dict[str, Any]) -> dict[str, Any]:
    document = pair(attention)
    document["decoder"]["layer"]["branches"][PLACE]["position"] = position
    return document


def inputs(left: int) -> dict[str, Tensor]:
    """A source, and a target whose second row begins with `left` tokens of padding."""
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randint(3, VOCABULARY, (2, length), generator=generator) for length in (20, STEPS))
    mask = torch.ones_like(target)
    mask[1, :left] = 0
    return {"input_ids": source, "decoder_input_ids": target, "decoder_attention_mask": mask}


@torch.no_grad()
def by_steps(model: pairform.Model, given: dict[str, Tensor]) -> Tensor:
    """The logits of a prompt of 8 tokens and of each token after it, with a cache."""
    cache, logits = pairform.Cache(), []
    ends = [8, *range(9, STEPS + 1)]
    for begin, end in zip([0, *ends], ends, strict=False):
        part = {"decoder_input_ids": given["decoder_input_ids"][:, begin:end]}
        part["decoder_attention_mask"] = given["decoder_attention_mask"][:, :end]
        logits.append(model(given["input_ids"], **part, cache=cache).logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("left", [0, 5])
@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: str(position["name"]))
@pytest.mark.parametrize("attention", ["merged", "cross"])
def test_steps_are_as_exact_as_a_pass_without_a_cache(attention: str, position: dict[str, Any], left: int) -> None:
    model, given = wide(case(attention, position), torch.bfloat16).eval(), inputs(left)
    exact = wide(case(attention, position)).eval()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        judge, once = exact(**given).logits, model(**given).logits
    real = given["decoder_attention_mask"].bool()
    errors = [(logits.double() - judge)[real].abs().mean() for logits in (by_steps(model, given), once)]
    assert errors[1] > 0
    # both round the same intermediate results; a key too many or too few gives an error ten times as large or more
    assert errors[0] < 1.1 * errors[1]
    assert errors[0] < 0.1 * judge[real].abs().mean()
