"""Table 1 of the T5Gemma 2 paper: the example's counts are those printed, and its variants are what they say and run."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform

EXAMPLES = Path(__file__).parents[1] / "examples"
TABLE: dict[str, Any] = json.loads((EXAMPLES / "t5gemma2_table1.json").read_text("utf-8"))
VARIANTS = list(TABLE["variants"])
PRINTED = {
    "baseline": (4417, 1180, 47.8),
    "tied embedding": (4417, 590, 47.7),
    "merged attention": (4049, 1180, 47.5),
    "cross-attention in one layer of two": (4233, 1180, 46.5),
}
"""Model and embedding parameters in millions, and the score, as in the paper."""
TEXT_DISAGREES = "cross-attention in one layer of six"
CROSS = 368_050_176 // 26 + 2 * 2304
"""Parameters of one layer's cross-attention and of the two norms around it."""
BASELINE = 2_024_517_888 + 2_392_687_872


def variant(name: str) -> pairform.ModelSpec:
    return pairform.patch(pairform.load_spec(TABLE["base"]), TABLE["variants"][name]["patch"])


def test_ours_are_the_printed_millions() -> None:
    found = {row.name: row for row in runpy.run_path(str(EXAMPLES / "t5gemma2_table1.py"))["rows"]()}
    assert list(found) == [*PRINTED, TEXT_DISAGREES]
    assert {name: (found[name].model, found[name].embedding, found[name].score) for name in PRINTED} == PRINTED
    assert all(row.embedding == row.printed_embedding for row in found.values())
    assert [row.model - row.printed_model for row in found.values()] == [0, 0, 0, 0, -127]


@pytest.mark.parametrize(("name", "layers"), list(zip(VARIANTS, [26, 26, 0, 13, 4], strict=True)))
def test_a_variant_has_as_much_cross_attention_as_it_says(name: str, layers: int) -> None:
    found = pairform.inspect(variant(name), source_length=1, target_length=1).parameters
    assert found["encoder"] + found["decoder"] == BASELINE - (26 - layers) * CROSS
    assert found["embedding"] == 256_000 * 2304 * (1 if name == "tied embedding" else 2)
    assert found["total"] == found["encoder"] + found["decoder"] + found["embedding"]


def test_only_one_layer_in_two_gives_what_the_paper_prints() -> None:
    fitting = [layers for layers in range(27) if round((BASELINE - (26 - layers) * CROSS) / 1_000_000) == 4233]
    assert fitting == [13]


@pytest.mark.parametrize("name", VARIANTS)
def test_windows_stay_and_the_last_of_each_group_keeps_cross_attention(name: str) -> None:
    decoder = variant(name).decoder
    assert decoder is not None
    attentions: list[Any] = [layer.branches["self_attention"] for layer in decoder.layers]
    assert [attention.mask.window for attention in attentions] == [(4095, 4095), None] * 13
    group = {"cross-attention in one layer of two": 2, TEXT_DISAGREES: 6}.get(name, 1)
    reading = [index for index, layer in enumerate(decoder.layers) if "cross_attention" in layer.branches]
    assert reading == ([] if name == "merged attention" else [index for index in range(26) if index % group == group - 1])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_small_one_of_the_same_shape_runs(name: str) -> None:
    heads = {"heads": 2, "kv_heads": 1, "head_dim": 4}
    stack = {"width": 16, "layer": {"branches": {"self_attention": heads, "feed_forward": {"hidden": 16}}}}
    small = {"vocabulary": 32, "encoder": stack, "decoder": stack}
    spec = pairform.patch(variant(name), small)
    if name != "merged attention":
        spec = pairform.patch(spec, {"decoder": {"layer": {"branches": {"cross_attention": heads}}}})
    model = pairform.build(spec, seed=0)
    ids = torch.tensor([[5, 6, 7, 8]])
    first, second = (model(source, decoder_input_ids=ids, output_attentions=True) for source in (ids, ids.flip(1)))
    assert first.logits.shape == (1, 4, 32)
    assert not torch.allclose(first.logits, second.logits)
    assert len(first.cross_attentions) == {"cross-attention in one layer of two": 13, TEXT_DISAGREES: 4}.get(name, 26)
