"""Decoding steps with copies of their weights in oneDNN's layout give the logits of the weights themselves."""

import threading

import pytest
import torch

import pairform
from pairform.blocks.functional import packing
from pairform.blocks.functional.packing import COPIES
from pairform.blocks.functional.processor import onednn_multiplies
from tests.merged.pairs import pair, wide

SOURCE = torch.randint(3, 96, (3, 40), generator=torch.Generator().manual_seed(0))
STEPS = 20


def dtypes() -> list[torch.dtype]:
    return [dtype for dtype in (torch.float32, torch.bfloat16, torch.float16) if onednn_multiplies(dtype)]


def logits(model: pairform.Model, rows: int) -> torch.Tensor:
    """The logits of each step, `[steps, rows, vocabulary]`."""
    made = model.generate(
        SOURCE[:rows], eos_token_id=(), max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True
    )
    assert made.logits is not None
    return torch.stack(made.logits)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The weights that were copied."""
    weights: list[torch.Tensor] = []
    original = packing.packed

    def packed(weight: torch.Tensor) -> torch.Tensor:
        weights.append(weight)
        return original(weight)

    monkeypatch.setattr(packing, "packed", packed)
    monkeypatch.setattr(packing, "LEAST", 0)
    return weights


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", dtypes(), ids=str)
def test_the_logits_of_the_plain_weights(
    dtype: torch.dtype, rows: int, copied: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide(pair("separate"), dtype)
    packs = logits(model, rows)
    assert bool(copied) == (rows > 1 or dtype != torch.float32)
    assert len(copied) == len({id(weight) for weight in copied}), "each is copied once"
    monkeypatch.setattr(packing, "LIMIT", 0)
    plain = logits(model, rows)
    exact = wide(pair("separate"), torch.float64)
    # the first step has equal tokens in all: judged by float64, copies round no more than the weights themselves
    with torch.no_grad():
        judge = exact(SOURCE[:rows], decoder_input_ids=torch.full((rows, 1), 2)).logits
    assert judge is not None
    errors = [float((made[0].double() - judge[:, 0]).abs().max()) for made in (packs, plain)]
    assert errors[0] <= 2 * errors[1]


def test_copies_end_with_the_call(copied: list[torch.Tensor]) -> None:
    model = wide(pair("separate"), torch.float32)
    before = logits(model, 3)
    assert copied
    assert COPIES.get() is None
    assert model.decoder is not None
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(logits(model, 3), before)
    assert all(not parameter.is_mkldnn for parameter in model.parameters())


def test_a_limit_leaves_the_other_weights_as_they_are(copied: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide(pair("separate"), torch.float32)
    monkeypatch.setattr(packing, "LIMIT", 20_000)
    logits(model, 3)
    assert 0 < sum(weight.nbytes for weight in copied) <= 20_000


def test_another_thread_has_no_copies(copied: list[torch.Tensor]) -> None:
    model, seen = wide(pair("separate"), torch.float32), []

    def stream(token: torch.Tensor) -> None:
        thread = threading.Thread(target=lambda: seen.append(COPIES.get()))
        thread.start()
        thread.join()

    model.generate(SOURCE, max_new_tokens=STEPS, eos_token_id=(), streamer=stream)
    assert copied
    assert seen
    assert all(each is None for each in seen)


def test_few_tokens_copy_nothing(copied: list[torch.Tensor]) -> None:
    wide(pair("separate"), torch.float32).generate(SOURCE, max_new_tokens=4)
    assert not copied
