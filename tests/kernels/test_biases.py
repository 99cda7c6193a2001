"""Numbers added to scores by distance: each kernel that adds them beside the formula, under any mask, with their gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pairform
from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.dispatch import KERNELS
from pairform.blocks.attention.kernels.tiles import tiling
from pairform.blocks.attention.masks import JoinedMask
from tests.catalogue.decoders import decoder_with
from tests.kernels.cases import ROWS, answer, heads_for, masks, sees_a_key

NAMES = [name for name, kernel in KERNELS.items() if kernel.bias]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "MOST", 8)
    monkeypatch.setattr(tiling, "FEWEST", 4)
    monkeypatch.setattr(tiling, "ON_CPU", 128)


def drawn(mask: JoinedMask, heads: int, kinds: list[bool]) -> tuple[Tensor | None, ...]:
    """Numbers for the distances of some parts."""
    generator = torch.Generator().manual_seed(1)
    queries = mask.lengths[0]
    return tuple(
        torch.randn(heads, queries + part.key_length - 1, generator=generator, requires_grad=True) if there else None
        for part, there in zip(mask.parts, kinds, strict=False)
    )


def written_out(mask: JoinedMask, heads: int, biases: tuple[Tensor | None, ...]) -> Tensor:
    """`[heads, queries, keys]`, one number at a time."""
    queries = mask.lengths[0]
    parts = []
    for part, bias in zip(mask.parts, biases, strict=True):
        places = torch.arange(part.key_length) - torch.arange(queries)[:, None] + queries - 1
        parts.append(torch.zeros(heads, queries, part.key_length) if bias is None else bias[:, places])
    return torch.cat(parts, -1)


def formula(mask: JoinedMask, heads: tuple[Tensor, Any, Any], work: AttentionCall, bias: Tensor) -> Tensor:
    queries, keys, values = heads[0], torch.cat(heads[1], 2), torch.cat(heads[2], 2)
    groups = queries.shape[1] // keys.shape[1]
    scores = queries @ keys.repeat_interleave(groups, 1).mT * work.scale
    if work.softcap is not None:
        scores = torch.tanh(scores / work.softcap) * work.softcap
    allowed = mask.dense(CPU)
    scores = scores + bias
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(torch.float32).min)
    return scores.softmax(-1) @ values.repeat_interleave(groups, 1)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(
    mask=masks(60), kinds=st.sampled_from([[True, False], [True, True], [False, True]]), softcap=st.sampled_from([None, 2.0])
)
def test_answers_and_gradients(name: str, mask: JoinedMask, kinds: list[bool], softcap: float | None) -> None:
    kernel = KERNELS[name]
    softcap = softcap if kernel.softcap else None
    heads = heads_for(mask, 4, 2)
    biases = drawn(mask, 4, kinds if len(mask.parts) > 1 else [True])
    leaves = [tensor.requires_grad_() for tensor in (heads[0], *heads[1], *heads[2])]
    leaves += [bias for bias in biases if bias is not None]
    work = AttentionCall(mask, 0.3, softcap, biases=biases)
    seen = sees_a_key(mask).expand(ROWS, 4, mask.lengths[0], 1)
    found = []
    for mixed in (formula(mask, heads, work, written_out(mask, 4, biases)), answer(kernel.run, heads, work)):
        found.append([mixed.detach() * seen, *torch.autograd.grad((mixed * seen).square().sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", [{"name": "t5_relative", "buckets": 8, "max_distance": 12}, {"name": "alibi"}])
def test_a_model_learns_in_tiles_what_it_learns_of_whole_scores(position: dict[str, Any]) -> None:
    attention = {"position": position, "sinks": True, "mask": {"causal": False, "window": None}}
    patch = {"decoder": {"layer": {"branches": {"self_attention": attention}}}}
    model = pairform.build(pairform.patch(decoder_with({"name": "none"}), patch), seed=0)
    ids = torch.randint(3, 23, (2, 30), generator=torch.Generator().manual_seed(0))
    gradients = []
    for kernel in NAMES:
        model.use_kernel(kernel)
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert any("table" in name or "sinks" in name for name in gradients[0])
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], rtol=1e-4, atol=1e-5)
