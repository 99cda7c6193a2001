"""Blocks of all kinds put together at random: what the spec takes works, and what cannot work is refused when it is read."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings

import pairform
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import inputs, loss_of

COUNT = 35
LEAST = {"encoder_decoder": 0.2, "decoder_only": 0.25, "encoder_only": 0.25}
"""The share of each assembly's specs that must work: about half of what does, since each run draws the same."""


def check_works(spec: pairform.ModelSpec) -> None:
    """It builds, is measured, runs, trains a step, and decodes with a cache as without."""
    assert pairform.load_spec(spec.document()) == spec
    assert pairform.inspect(spec, source_length=6, target_length=5).parameters["total"] > 0
    model = pairform.build(spec, seed=0, dtype=torch.float64)
    batch = inputs(spec)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = loss_of(model.train(), batch)
    assert loss.isfinite()
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    optimiser.step()
    assert loss_of(model.eval(), batch).isfinite()
    if spec.decoder is not None and spec.head.name == "lm":
        batch.pop("decoder_input_ids", None)
        for beams in (1, 2):
            options: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": (), "num_beams": beams}
            written = [model.generate(**batch, **options, use_cache=used) for used in (True, False)]
            assert torch.equal(*written)


@pytest.mark.parametrize(("assembly", "shard"), [(name, shard) for name in LEAST for shard in (4, 5)])
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
