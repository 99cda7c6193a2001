"""A patch on what is loaded changes how the stored tensors are used: one that leaves some out is refused, with their names."""

from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.broken.damage import refused
from tests.small_pairs import small_pair, tokens

LAYER = "decoder.layers.1.cross_attention.block.k_proj.weight"
DROPPING: dict[str, tuple[dict[str, Any], str]] = {
    "a head that becomes tied": ({"head": {"tie": "decoder"}}, "head.weight"),
    "no head": ({"head": {"name": "none", "tie": None}}, "head.weight"),
    "a layer less": ({"decoder": {"depth": 1}}, LAYER),
    "a branch less in one layer": (
        {"encoder": {"overrides": [{"layers": [1], "patch": {"branches": {"feed_forward": None}}}]}},
        "encoder.layers.1.feed_forward.post_norm.weight",
    ),
    "one table for both": ({"tie_embeddings": True}, "decoder.embedding.weight"),
    "no norms behind branches": (
        {"encoder": {"layer": {"placement": "pre"}}},
        "encoder.layers.0.self_attention.post_norm.weight",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "untied"
    pairform.save(pairform.build(small_pair(head={"tie": None}), seed=0), target)
    return target


@pytest.mark.parametrize("what", DROPPING)
def test_a_patch_that_drops_tensors_is_refused(what: str, folder: Path) -> None:
    patch, name = DROPPING[what]
    refused(lambda: pairform.load(folder, patch=patch), name, "a tensor that this model does not have", "`carry`")
    refused(lambda: pairform.load(folder, patch={"decoder": {"depth": 3}}), "decoder.layers.2", "no such tensor", "`carry`")


def test_a_patch_that_keeps_all_is_taken(folder: Path) -> None:
    window = {"encoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}, "cycle": []}}
    loaded, patched = pairform.load(folder), pairform.load(folder, patch=window)
    assert loaded.state_dict().keys() == patched.state_dict().keys()
    ids = tokens()
    assert not patched(ids, decoder_input_ids=ids).logits.equal(loaded(ids, decoder_input_ids=ids).logits)
