"""Retention against its formula in float64, token by token; and decoded from its state as without a cache."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import pairform
from pairform.blocks.attention.retention import Retention
from pairform.blocks.context import Context
from pairform.registry import Sizes
from tests.catalogue.decoders import IDS, MASK, check_pieces, check_writing, decoder_with
from tests.test_blocks import filled

WIDTH, HEADS, KEYS, VALUES = 16, 4, 6, 10
DOCUMENT: dict[str, Any] = {
    "name": "retention",
    "heads": HEADS,
    "head_dim": KEYS,
    "value_dim": VALUES,
    "position": {"name": "rope"},
    "mask": {"causal": True, "window": None},
}


def turned(heads: Tensor) -> Tensor:
    """Rotated by complex numbers, halves against each other: `[batch, length, heads, head_dim]`."""
    first, second = heads.chunk(2, -1)
    angles = torch.arange(heads.shape[1])[:, None, None].double() * 10000.0 ** (-torch.arange(0, KEYS, 2).double() / KEYS)
    found = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((found.real, found.imag), -1)


def formula(block: Any, hidden: Tensor) -> Tensor:
    """RetNet's equations 3 and 8, YOCO's decay, one token after the other."""
    heads = {name: getattr(block, f"{name}_proj")(hidden).unflatten(-1, (HEADS, -1)) for name in ("q", "k", "v", "gate")}
    queries, keys = heads["q"], heads["k"] / KEYS**0.5
    if block.spec.position.name == "rope":
        queries, keys = turned(queries), turned(keys)
    if block.decay_proj is None:
        decay = (1 - 2.0 ** (-5 - torch.arange(HEADS).double())).expand(*hidden.shape[:2], -1)
    else:
        decay = block.decay_proj(hidden).sigmoid() ** (1 / block.spec.temperature)
    state, rows = torch.zeros(len(hidden), HEADS, KEYS, VALUES, dtype=torch.float64), []
    for place in range(hidden.shape[1]):
        added = torch.einsum("bhk,bhv->bhkv", keys[:, place], heads["v"][:, place])
        state = decay[:, place, :, None, None] * state + added
        rows.append(torch.einsum("bhk,bhkv->bhv", queries[:, place], state))
    found = torch.stack(rows, 1)
    normed = found / (found.square().mean(-1, keepdim=True) + block.spec.eps).sqrt()
    return block.o_proj((normed * functional.silu(heads["gate"])).flatten(2))


def block_with(**fields: Any) -> Any:
    return filled(Retention(Retention.Spec.read(DOCUMENT | {"temperature": 2.0} | fields), Sizes(WIDTH))).double()


@pytest.mark.parametrize("decay", ["fixed", "gated"])
@pytest.mark.parametrize("length", [1, 9, 64, 150])
def test_chunks_are_the_recurrence(decay: str, length: int) -> None:
    block = block_with(decay=decay, position={"name": "none"})
    hidden = torch.randn(2, length, WIDTH, dtype=torch.float64, requires_grad=True)
    found, expected = block(hidden, Context(torch.arange(length)[None])), formula(block, hidden)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(answer.square().sum(), [hidden, *block.parameters()]) for answer in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_rotation_is_of_queries_and_keys() -> None:
    block, hidden = block_with(), torch.randn(2, 70, WIDTH, dtype=torch.float64)
    found = block(hidden, Context(torch.arange(70)[None]))
    torch.testing.assert_close(found, formula(block, hidden), rtol=1e-5, atol=1e-5)  # its angles are in float32


@torch.no_grad()
def test_under_autocast_the_state_stays_in_float32() -> None:
    block, hidden = block_with(position={"name": "none"}), torch.randn(1, 500, WIDTH, dtype=torch.float64)
    states = []
    for dtype in (torch.float64, torch.float32):
        cache = pairform.Cache()
        context = Context(torch.arange(500)[None], cache=cache)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            block.to(dtype)(hidden.to(dtype), context)
        states.append(cache.states[context.place].state)
    assert states[1].dtype == torch.float32
    assert (states[1] - states[0]).norm() <= 1e-2 * states[0].norm()


def test_steps_are_the_chunks() -> None:
    block = block_with(position={"name": "none"})
    hidden = torch.randn(2, 150, WIDTH, dtype=torch.float64)
    context = Context(torch.arange(150)[None], cache=pairform.Cache())
    whole = block(hidden, Context(torch.arange(150)[None]))
    steps = [block(token, context) for token in torch.split(hidden, 1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-10, atol=1e-10)


def model_with(*, overrides: Any = (), **fields: Any) -> pairform.Model:
    document = decoder_with({"name": "none"}).document()
    document["decoder"] |= {"overrides": list(overrides)}
    document["decoder"]["layer"]["branches"]["self_attention"] = DOCUMENT | fields
    return pairform.build(document, seed=0)


LOCAL = {"name": "self_attention", "mask": {"window": [3, 0]}}
MIXED = [{"layers": [1], "patch": {"branches": {"self_attention": LOCAL}}}]


@pytest.mark.parametrize("decay", ["fixed", "gated"])
@pytest.mark.parametrize("overrides", [[], MIXED])
def test_it_decodes_with_a_cache_as_without(decay: str, overrides: Any) -> None:
    model = model_with(decay=decay, overrides=overrides)
    check_writing(model, beams=(1, 3))
    ids = torch.randint(3, 23, (2, 140), generator=torch.Generator().manual_seed(0))
    check_pieces(model, [1, 70, 1, 3, 65], ids, tolerance=1e-3)


@pytest.mark.usefixtures("graphs_as_traced")
def test_it_decodes_in_a_compiled_step() -> None:
    model = model_with(overrides=MIXED)
    plain, compiled = (model.generate(IDS, MASK, max_new_tokens=5, compile=chosen) for chosen in (False, True))
    assert torch.equal(plain, compiled)


@pytest.mark.parametrize("ends", [(4, 0), (0, 5), (60, 70)])
def test_padding_changes_nothing(ends: tuple[int, int]) -> None:
    model = model_with()
    padded = model(functional.pad(IDS, ends), functional.pad(torch.ones_like(IDS), ends)).logits
    torch.testing.assert_close(padded[:, ends[0] : ends[0] + 9], model(IDS).logits, rtol=1e-4, atol=1e-4)


def test_packed_documents_are_apart_also_in_a_cache() -> None:
    model = model_with()
    lengths = [5, 70, 3, 64, 1]
    ids = torch.randint(3, 23, (2, sum(lengths)), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([number for number, length in zip([4, 1, 9, 2, 3], lengths, strict=True) for _ in range(length)])
    segments = segments.expand(2, -1)
    alone = torch.cat([model(document).logits for document in torch.split(ids, lengths, 1)], 1)
    torch.testing.assert_close(model(ids, segment_ids=segments).logits, alone, rtol=1e-4, atol=1e-4)
    cache, steps, end = pairform.Cache(), [], 0
    for piece in torch.split(ids, [5, 1, 80, 57], 1):
        end += piece.shape[1]
        steps.append(model(piece, segment_ids=segments[:, :end], cache=cache).logits)
    torch.testing.assert_close(torch.cat(steps, 1), alone, rtol=1e-4, atol=1e-4)


def test_its_memory_is_as_large_after_any_number_of_tokens() -> None:
    model = model_with()
    sizes = []
    for ids in (IDS, IDS[:, :1]):
        cache = pairform.Cache()
        model(ids, cache=cache)
        sizes.append(cache.bytes)
    assert model.spec.decoder is not None
    assert sizes == [model.spec.decoder.depth * 2 * HEADS * KEYS * VALUES * 4] * 2
    cost = pairform.inspect(model.spec, batch=2, target_length=100, dtype=torch.float32)
    assert cost.cache_bytes["self"] == sizes[0]


def test_a_short_text_costs_what_its_tokens_cost() -> None:
    spec = model_with().spec
    costs = [pairform.inspect(spec, target_length=length).flops["decoder"] for length in (8, 16, 64)]
    assert costs[1] < 2.5 * costs[0]
    assert costs[2] > 3 * costs[1]


def test_it_trains_in_half_precision_and_under_strong_decay() -> None:
    model = model_with(temperature=0.01).bfloat16().train()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mask": {"causal": False}},
            "mask.causal: found false, expected a causal mask: a recurrent mixer reads no later token",
        ),
        ({"mask": {"causal": True, "window": [3, 0]}}, r"mask.window: found \[3, 0\], expected null"),
        ({"mask": {"causal": True, "prefix": True}}, "mask.prefix: found true"),
        ({"position": {"name": "alibi"}}, "position: found 'alibi', expected a position of queries and keys"),
        ({"head_dim": None, "heads": 3}, "heads: found 3 heads in a width of 16"),
    ],
)
def test_what_it_cannot_do_is_refused_when_the_spec_is_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pairform.PairformError, match=message):
        model_with(**fields)
