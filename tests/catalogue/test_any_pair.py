"""Blocks of all kinds put together at random: what the spec takes works, and what cannot work is refused when it is read.

The normal run draws specs from one seed for each assembly, others from as many as the environment variable PAIRFORM_SEEDS says.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from torch import Tensor
from torch.nn import functional

import pairform
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import answer, inputs, loss_of

COUNT = 35
SEEDS = range(4, 4 + int(os.environ.get("PAIRFORM_SEEDS", "1")))
LEAST = {"encoder_decoder": 0.15, "decoder_only": 0.25, "encoder_only": 0.15}
"""The share of each assembly's specs that must work: well below what does: a run draws few."""


def check_works(spec: pairform.ModelSpec) -> None:
    """It builds, is measured, survives saving, ignores padding, trains a step, and decodes with a cache as without."""
    assert pairform.load_spec(spec.document()) == spec
    assert pairform.inspect(spec, source_length=6, target_length=5).parameters["total"] > 0
    model = pairform.build(spec, seed=0, dtype=torch.float64)
    batch = inputs(spec)
    with torch.no_grad():
        check_saving(model, batch)
        check_padding(model, batch)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = loss_of(model.train(), batch)
    assert loss.isfinite()
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    optimiser.step()
    assert loss_of(model.eval(), batch).isfinite()
    if spec.decoder is not None and spec.head.name == "lm":
        check_decoding(model, batch)


def check_saving(model: pairform.Model, batch: dict[str, Any]) -> None:
    """The same weights, bit by bit, after the model was saved in shards and loaded.

    The answer may differ by a rounding: products of matrices that lie elsewhere in memory are summed in another order.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        pairform.save(model, out, max_shard_size="2KB")
        again = pairform.load(out)
        assert pairform.verify(out).ok
        assert again.spec == model.spec
        weights = again.state_dict()
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
        torch.testing.assert_close(answer(again, batch), answer(model, batch), rtol=1e-12, atol=1e-12)


def check_padding(model: pairform.Model, batch: dict[str, Any]) -> None:
    """More padding on either side changes nothing."""
    alone, (decoded, mask) = answer(model, batch), decoder_masked(batch)
    for ends in ((3, 0), (0, 2)):
        wider = dict(batch)
        for name in {"input_ids", decoded}:
            wider[name] = functional.pad(batch[name], ends)
            wider[masking(name)] = functional.pad(batch.get(masking(name), torch.ones_like(batch[name])), ends)
        padded = answer(model, wider)
        if padded.dim() == 3:
            real = wider[masking(decoded)].bool()
            torch.testing.assert_close(padded[real], alone[mask.bool()], rtol=1e-9, atol=1e-9)
        else:
            torch.testing.assert_close(padded, alone, rtol=1e-9, atol=1e-9)


def check_decoding(model: pairform.Model, batch: dict[str, Any]) -> None:
    """Token by token with a cache as in one pass; and so in generation, greedy and in beams."""
    decoded, mask = decoder_masked(batch)
    if decoded == "decoder_input_ids" or "pixel_values" not in batch:
        cache, steps = pairform.Cache(), []
        with torch.no_grad():
            for seen, token in enumerate(torch.split(batch[decoded], 1, dim=1), 1):
                steps.append(answer(model, {**batch, decoded: token, masking(decoded): mask[:, :seen], "cache": cache}))
            found, expected = torch.cat(steps, dim=1), answer(model, batch)
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-9, atol=1e-9)
    batch.pop("decoder_input_ids", None)
    for beams in (1, 2):
        options: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": (), "num_beams": beams}
        written = [model.generate(**batch, **options, use_cache=used) for used in (True, False)]
        assert torch.equal(*written)


def decoder_masked(batch: dict[str, Any]) -> tuple[str, Tensor]:
    """Which argument the answer's positions are those of, and which of them are real."""
    name = "decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"
    return name, batch.get(masking(name), torch.ones_like(batch[name]))


def masking(ids: str) -> str:
    return ids.replace("input_ids", "attention_mask")


@pytest.mark.parametrize("shard", SEEDS)
@pytest.mark.parametrize("assembly", LEAST)
def test_random_specs_work_or_are_refused_when_they_are_read(assembly: str, shard: int) -> None:
    """Of each assembly so many work that a rule which refuses too much is noticed."""
    counted: Counter[str] = Counter()

    @seed(shard)
    @settings(max_examples=COUNT)
    @given(documents(assembly))
    def check(document: Document) -> None:
        try:
            spec = pairform.load_spec(document)
        except pairform.PairformError as error:
            assert all(problem.where and problem.expected for problem in error.problems)
            counted["refused"] += 1
            return
        check_works(spec)
        counted["work"] += 1

    check()
    assert counted.total() >= COUNT
    assert counted["work"] >= LEAST[assembly] * counted.total(), counted
