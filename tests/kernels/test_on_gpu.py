"""The kernels for a GPU, on one: answers and gradients beside the reference's in float32 on the CPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import pairform
from pairform.assemblies.modeling.inputs import StackInputs
from pairform.blocks.attention.kernels.arguments import AttentionCall, Parts, Run
from pairform.blocks.attention.kernels.dispatch import KERNELS, Demand
from pairform.blocks.attention.kernels.eager import eager
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from tests.kernels.cases import WIDE, answer, heads_for, masks, real_queries, sees_a_key

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none")
CASES = [
    *((name, torch.bfloat16, 2e-2, (4, 2)) for name in ("flex", "xformers", "flash", "chunked", "sdpa", "eager")),
    *((name, torch.float32, 1e-5, (3, 1)) for name in ("flex", "xformers", "chunked", "sdpa", "eager")),
]


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["name"]
    if reason := KERNELS[name].lacks("cuda"):
        pytest.skip(f"{name} {reason}")


def moved(mask: JoinedMask, device: str) -> JoinedMask:
    def move(part: Mask) -> Mask:
        held: dict[str, Any] = {name: value.to(device) for name, value in vars(part).items() if isinstance(value, Tensor)}
        return replace(part, **held)

    return JoinedMask(tuple(move(part) for part in mask.parts))


def gradients(run: Run, heads: tuple[Tensor, Parts, Parts], work: AttentionCall, real: Tensor) -> tuple[Tensor, ...]:
    """The answer and its gradients at queries that count."""
    queries, keys, values = heads
    leaves = [tensor.requires_grad_() for tensor in (queries, *keys, *values)]
    mixed = answer(run, (queries, keys, values), work) * real
    return mixed.detach(), *torch.autograd.grad(mixed.float().square().sum(), leaves)


@pytest.mark.parametrize(("name", "dtype", "most", "counts"), CASES)
@settings(max_examples=30)
@given(mask=masks())
def test_answers_and_gradients(name: str, dtype: torch.dtype, most: float, counts: tuple[int, int], mask: JoinedMask) -> None:
    kernel = KERNELS[name]
    pictures = any(part.blocks is not None for part in mask.parts)
    demand = Demand(merged=len(mask.parts) > 1, pictures=pictures, device="cuda", dtype=dtype)
    if kernel.refuses(demand):
        return
    work = AttentionCall(mask, 0.3, 2.0 if kernel.softcap else None)
    real = real_queries(mask) & sees_a_key(mask)
    queries, keys, values = heads_for(mask, *counts, dtype)
    wide = queries.float(), tuple(part.float() for part in keys), tuple(part.float() for part in values)
    there = queries.cuda(), tuple(part.cuda() for part in keys), tuple(part.cuda() for part in values)
    expected = gradients(eager, wide, work, real)
    found = gradients(kernel.run, there, replace(work, mask=moved(mask, "cuda")), real.cuda())
    largest = max(float(other.norm()) for other in expected[1:])  # terms of that size may cancel, where a query sees one key
    for one, other in zip(found, expected, strict=True):
        assert (one.cpu().float() - other).norm() <= most * max(float(other.norm()), largest)


@pytest.mark.parametrize("name", ["flex", "flash"])
def test_a_model_trains_and_writes_as_by_the_reference(name: str) -> None:
    ids = torch.randint(3, 48, (2, 150), generator=torch.Generator().manual_seed(0)).cuda()
    ids[0, :20] = 0
    models = [
        pairform.build(WIDE, device="cuda", dtype=torch.bfloat16, seed=0, kernel=kernel).train() for kernel in (name, "eager")
    ]
    losses = [model(ids, labels=ids[:, 20:]).loss for model in models]
    torch.testing.assert_close(losses[0], losses[1], rtol=2e-2, atol=0)
    for loss, model in zip(losses, models, strict=True):
        assert loss is not None
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
        assert model.generate(ids, max_new_tokens=4).shape[0] == 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["flex"])
def test_a_new_length_or_mask_compiles_nothing(name: str) -> None:
    def run(length: int, spec: MaskPattern) -> None:
        mask = JoinedMask((Mask(spec, 0, length, 0, length),))
        queries, (keys,), (values,) = heads_for(mask, 4, 2)
        answer(KERNELS[name].run, (queries.cuda(), (keys.cuda(),), (values.cuda(),)), AttentionCall(mask, 0.3, softcap=2.0))

    for length in (40, 200):  # torch distinguishes fewer than 128 queries from more
        run(length, MaskPattern())
    with torch.compiler.set_stance("fail_on_recompile"):
        for length in (41, 128, 300, 512):
            run(length, MaskPattern(causal=True, window=(length // 3, 0)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["flex"])
def test_a_compiled_stack_takes_it_in_whole(name: str) -> None:
    ids = torch.randint(3, 48, (2, 30), generator=torch.Generator().manual_seed(0)).cuda()
    hidden = []
    for kernel in (name, "eager"):
        encoder: Any = pairform.build(WIDE, device="cuda", seed=0, kernel=kernel).encoder
        compiled: Any = torch.compile(encoder, fullgraph=True)
        hidden.append(compiled(StackInputs(ids, valid=ids > 5)).hidden)
    torch.testing.assert_close(hidden[0], hidden[1], rtol=1e-4, atol=1e-4)
