"""In half precision every block is as near to float64 as its dtype's rounding lets it be, and finite where float64 is.

Errors are counted in roundings of the dtype, 2^-11 in float16 and 2^-8 in bfloat16, relative to the size of the exact value.
docs/precision.md states the bounds. The second row of each batch is padded on the left, so that some queries see no key.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from pairform.registry import Sizes, build_block
from tests.catalogue.places import BLOCKS, Document, answer, inputs, labels_for, places, put
from tests.kernels import test_half_precision as kernels
from tests.roundings import roundings

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
FORWARD, GRADIENT, NORM = 24, 64, 2
"""Roundings: of a token's logits or hidden states (the median), of all gradients together, and of a norm by itself."""
CHAOTIC = {("norm", "none")}
"""Without norms the gradients of a small model double with each rounding."""
LOSS_SCALE = 2.0**16


def precisions() -> list[Any]:
    """Each dtype, of the weights and by autocast."""
    return [
        pytest.param(dtype, autocast, id=f"{name}{' autocast' if autocast else ''}")
        for name, dtype in DTYPES.items()
        for autocast in (False, True)
    ]


def pair_of(spec: pairform.ModelSpec, dtype: torch.dtype, *, autocast: bool) -> tuple[pairform.Model, pairform.Model]:
    """A model and its float64 counterpart, whose weights are the model's own."""
    model = pairform.build(spec, seed=0, dtype=torch.float32 if autocast else dtype)
    exact = pairform.build(spec, seed=0, dtype=torch.float64)
    exact.load_state_dict(model.state_dict())
    return model, exact


def cast(dtype: torch.dtype, autocast: bool) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype) if autocast else nullcontext()


def widened(batch: Document) -> Document:
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def loss_of(model: pairform.Model, batch: Document) -> Tensor:
    """The loss, or of a head that has none the squared distance of what it gives from something."""
    given = answer(model, batch)
    if model.spec.head.name in ("none", "sentence_embedding"):
        target = torch.randn(given.shape, generator=torch.Generator().manual_seed(0))
        return (given.to(torch.promote_types(given.dtype, torch.float32)) - target).square().sum()
    loss = model(**batch, labels=labels_for(model.spec.head, batch, given)).loss
    assert loss is not None
    return loss


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """All as one vector, under the largest loss scale at which they are finite, as torch's GradScaler finds it."""
    scale = LOSS_SCALE
    while True:
        given = torch.autograd.grad(loss * scale, leaves, retain_graph=True, allow_unused=True)
        found = torch.cat([grad.flatten().double() for grad in given if grad is not None]) / scale
        if found.isfinite().all() or scale == 1:
            return found
        scale /= 2


@pytest.mark.parametrize(("dtype", "autocast"), precisions())
@pytest.mark.parametrize(("kind", "name"), BLOCKS, ids=lambda word: word)
def test_every_block_is_near_float64(kind: str, name: str, dtype: torch.dtype, autocast: bool) -> None:
    for place, spec in places(kind, name).items():
        batch = inputs(spec)
        model, exact = pair_of(spec, dtype, autocast=autocast)
        with cast(dtype, autocast):
            given, loss = answer(model, batch), loss_of(model, batch)
        wanted, wanted_loss = answer(exact, widened(batch)), loss_of(exact, widened(batch))
        assert given.isfinite().all(), place
        assert autocast or given.dtype == dtype, place
        pairs = zip(given.flatten(0, -2), wanted.flatten(0, -2), strict=True)
        each = torch.tensor([roundings(one, other, dtype) for one, other in pairs])
        assert each.median() <= FORWARD, place  # a token that rounding sends to another expert is far off
        assert roundings(loss, wanted_loss, dtype) <= FORWARD, place
        leaves = [[tensor for tensor in each.parameters() if tensor.requires_grad] for each in (model, exact)]
        found, true = gradients(loss, leaves[0]), gradients(wanted_loss, leaves[1])
        assert found.isfinite().all(), place
        assert (kind, name) in CHAOTIC or roundings(found, true, dtype) <= GRADIENT, place


@pytest.mark.parametrize(("dtype", "autocast"), precisions())
@pytest.mark.parametrize("name", [name for kind, name in BLOCKS if kind == "attention"])
@torch.no_grad()
def test_a_token_decoded_with_a_cache_is_near_float64(name: str, dtype: torch.dtype, autocast: bool) -> None:
    for place, spec in places("attention", name).items():
        batch = inputs(spec)
        model, exact = pair_of(spec, dtype, autocast=autocast)
        wanted = answer(exact, batch)
        key = "decoder_input_ids" if spec.encoder is not None else "input_ids"
        cache = pairform.Cache()
        for end in range(1, batch[key].shape[1] + 1):
            part = batch | {key: batch[key][:, end - 1 : end]}
            if spec.encoder is None:
                part["attention_mask"] = batch["attention_mask"][:, :end]
            with cast(dtype, autocast):
                given = answer(model, part | {"cache": cache})[:, 0]
            assert given.isfinite().all(), place
            real = batch["attention_mask"][:, end - 1] == 1 if spec.encoder is None else slice(None)
            assert roundings(given[real], wanted[:, end - 1][real], dtype) <= FORWARD, (place, end)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("size", [3e4, 1.0, 1e-4])
@pytest.mark.parametrize("name", [name for kind, name in BLOCKS if kind == "norm"])
def test_a_norm_is_exact_from_the_smallest_to_the_largest_number(name: str, size: float, dtype: torch.dtype) -> None:
    """Squares of 300 are beyond float16, those of 1e-4 below it."""
    spec = pairform.blocks("norm")[name].Spec.read(pairform.blocks("norm")[name].Spec.example())
    hidden = (torch.randn(2, 5, 64).clamp(-2, 2) * size).to(dtype)
    slopes = torch.randn(hidden.shape).to(dtype)
    found = []
    for used in (dtype, torch.float64):
        norm = build_block(spec, Sizes(64), "norm").to(used)
        for parameter in norm.parameters():
            torch.nn.init.constant_(parameter, 0.5)
        leaf = hidden.to(used).requires_grad_()
        given = norm(leaf)
        found.append((given, *torch.autograd.grad(given, leaf, slopes.to(used))))
    for got, true in zip(*found, strict=True):
        assert got.isfinite().all()
        off = (got.double() - true).abs() - torch.finfo(torch.float32).eps  # a slope of tanh far out is 0
        assert off.clamp(min=0).norm() <= NORM * torch.finfo(dtype).eps / 2 * true.norm()


def test_the_bounds_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "precision.md").read_text("utf-8")
    stated = [int(line.rsplit("|", 2)[1]) for line in page.splitlines() if line.startswith("|") and line[-3].isdigit()]
    assert stated == [FORWARD, FORWARD, GRADIENT, FORWARD, NORM, kernels.FORWARD, kernels.GRADIENT]


@torch.no_grad()
def test_a_mean_over_tokens_is_finite_where_their_sum_is_not() -> None:
    head = put(pairform.load_spec("t5gemma-s-s").document(), "head", {"name": "sentence_embedding", "normalise": False})
    block: Any = build_block(pairform.load_spec(head).head, Sizes(8), "head")
    hidden = torch.full((1, 64, 8), 3e4, dtype=torch.float16)
    assert torch.equal(block(hidden, None, None), hidden[:, 0])
