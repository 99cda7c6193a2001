"""Norms, gates and capped logits over many rows without gradients: what they say with them, bit for bit."""

import pytest
import torch

import pairform
from pairform.blocks.functional import blocked_ops as rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["t5gemma-s-s", "t5gemma2-270m-270m"])
def test_a_pass_without_gradients_equals_one_with_them(
    family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "AT_ONCE", 1000)  # a piece is some rows, and the last piece fewer
    small = {"depth": 1, "width": 32, "layer": {"branches": {"feed_forward": {"hidden": 80}}}}
    spec = pairform.patch(
        pairform.load_spec(family), {"vocabulary": 600, "initializer_range": 0.3, "encoder": small, "decoder": small}
    )
    model = pairform.build(spec, dtype=dtype, seed=0).eval()
    ids = torch.randint(3, 600, (2, 37), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "decoder_input_ids": ids.flip(0)}
    with torch.no_grad():
        free = model(**given)
    held = model(**given)
    assert torch.equal(free.logits, held.logits)
