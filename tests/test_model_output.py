"""A model's output, read as outputs of transformers are, and as a pytree."""

from typing import Any

import pytest
import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

import pairform
from pairform.blocks.heads.prediction import Prediction
from tests.small_pairs import small_pair

IDS, TARGET = torch.randint(3, 29, (2, 9)), torch.randint(3, 29, (2, 5))


@pytest.fixture(scope="module")
def model() -> pairform.Model:
    return pairform.build(small_pair(), seed=0)


def test_parts_are_read_by_name_and_by_place(model: pairform.Model) -> None:
    output = model(IDS, labels=TARGET)
    assert output.keys()[:2] == ("loss", "logits")
    assert output["loss"] is output[0] is output.loss
    assert output["logits"] is output[1] is output.logits
    assert output[1:] == output.to_tuple()[1:]
    assert dict(output.items()).keys() == set(output)
    assert len(output) == len(output.values())
    assert "attentions" not in output
    assert output.get("attentions", 3) == 3
    with pytest.raises(KeyError):
        output["attentions"]


def test_logits_are_not_computed_by_flattening(model: pairform.Model) -> None:
    """Wrappers that look for tensors in an output, such as FSDP, would otherwise undo what lazy logits save."""
    output = model(IDS, labels=TARGET)
    leaves, structure = pytree.tree_flatten(output)
    again = pytree.tree_unflatten(leaves, structure)
    assert isinstance(again.prediction, Prediction)
    assert again.prediction.made is None
    assert torch.equal(again.logits, output.logits)


def test_a_pytree_holds_the_tensors(model: pairform.Model) -> None:
    output = model(IDS, decoder_input_ids=TARGET, output_hidden_states=True)
    doubled: Any = pytree.tree_map(lambda tensor: 2 * tensor, output)
    assert torch.equal(doubled.logits, 2 * output.logits)
    assert torch.equal(doubled.decoder_hidden_states[0], 2 * output.decoder_hidden_states[0])


def test_a_whole_model_is_exported_with_any_batch_and_lengths(model: pairform.Model) -> None:
    shapes = {"input_ids": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, "decoder_input_ids": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}}
    with torch.no_grad():
        exported = torch.export.export(model, (IDS,), {"decoder_input_ids": TARGET}, dynamic_shapes=shapes).module()
        for batch, length, target in ((2, 9, 5), (3, 40, 2), (7, 2, 31), (4, 17, 17), (5, 64, 12)):
            ids, decoder_ids = torch.randint(3, 29, (batch, length)), torch.randint(3, 29, (batch, target))
            expected = model(ids, decoder_input_ids=decoder_ids).logits
            torch.testing.assert_close(exported(ids, decoder_input_ids=decoder_ids).logits, expected, rtol=1e-5, atol=1e-5)
