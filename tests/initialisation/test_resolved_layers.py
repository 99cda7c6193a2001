"""A pair is made layer by layer, whatever its sources' template, cycle and overrides say and whatever names branches have."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.broken.damage import refused
from tests.initialisation.small_models import IDS, alone, attention, paired, saved, stack


def own(**fields: Any) -> dict[str, Any]:
    return {"branches": {"self_attention": fields}}


LOCAL = own(mask={"causal": True, "window": [3, 3]})
WRITTEN: dict[str, dict[str, Any]] = {
    "template": {},
    "cycle": {"cycle": [LOCAL, {}]},
    "overrides": {"overrides": [{"layers": [1, -1], "patch": LOCAL}]},
    "both": {"cycle": [{}, LOCAL, {}], "overrides": [{"layers": [0], "patch": own(mask={"causal": True, "prefix": True})}]},
    "a block in the cycle": {"cycle": [own(**attention(mask={"causal": True})), {}]},
    "all layers": {"cycle": [LOCAL], "overrides": [{"layers": [0, 1, 2, 3], "patch": own(mask={"causal": True})}]},
}


@pytest.mark.parametrize("where", WRITTEN)
def test_no_layer_of_a_new_encoder_is_causal(where: str, tmp_path: Path) -> None:
    spec = pairform.load_spec(alone(stack() | WRITTEN[where]))
    source = saved(tmp_path / "source", spec.document())
    made = pairform.plan(encoder=source, decoder=source).spec
    assert made.encoder is not None
    assert spec.decoder is not None
    for layer, old in zip(made.encoder.layers, spec.decoder.layers, strict=True):
        mask, before = (each.document()["branches"]["self_attention"]["mask"] for each in (layer, old))
        assert mask == before | {"causal": False, "prefix": False}


def test_a_window_to_the_left_alone_reaches_to_both_sides(tmp_path: Path) -> None:
    causal = own(mask={"causal": True, "window": [3, 0]})
    source = saved(tmp_path / "source", alone(stack() | {"cycle": [causal, {}]}))
    plan = pairform.plan(encoder=source, decoder=source)
    assert plan.spec.encoder is not None
    masks = [layer.document()["branches"]["self_attention"]["mask"] for layer in plan.spec.encoder.layers]
    both = {"causal": False, "prefix": False}
    assert masks == [both | {"window": [3, 3]}, both] * 2


def renamed(document: dict[str, Any]) -> dict[str, Any]:
    """The same stack with other names of branches."""
    layer = document["layer"]
    branches = {"mixing": layer["branches"]["self_attention"], "vision": layer["branches"]["feed_forward"]}
    return document | {"layer": layer | {"order": list(branches), "branches": branches}}


@torch.no_grad()
@pytest.mark.parametrize("mode", ["auto", "zero_output"])
def test_branches_may_have_any_name(mode: str, tmp_path: Path) -> None:
    plain, other = saved(tmp_path / "plain", alone(stack())), saved(tmp_path / "other", alone(renamed(stack())))
    options: dict[str, Any] = {"cross_attention": mode}
    pairform.convert(encoder=other, decoder=other, out=tmp_path / "pair", **options)
    pair, source = pairform.load(tmp_path / "pair"), pairform.load(other)
    assert pair.spec.encoder is not None
    assert not any(layer.document()["branches"]["mixing"]["mask"]["causal"] for layer in pair.spec.encoder.layers)
    decoder = pair.get_submodule("decoder.layers.2")
    assert [name for name, _ in decoder.named_children()] == ["mixing", "cross_attention", "vision"]
    copied = decoder.get_submodule("cross_attention.block.q_proj").get_parameter("weight")
    assert copied.equal(source.get_parameter("decoder.layers.2.mixing.block.q_proj.weight"))
    if mode == "zero_output":
        torch.testing.assert_close(pair(IDS, decoder_input_ids=IDS).logits, source(IDS).logits)
    plan = pairform.plan(encoder=plain, decoder=other)
    assert plan.spec.decoder is not None


def test_a_cross_attention_of_another_name_is_silent_too(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", alone(stack()))
    made = pairform.plan(encoder=source, decoder=source).spec.document()
    layer = made["decoder"]["layer"]
    layer["branches"]["reading"] = layer["branches"].pop("cross_attention")
    layer["order"] = ["self_attention", "reading", "feed_forward"]
    pairform.convert(encoder=source, decoder=source, spec=made, cross_attention="zero_output", out=tmp_path / "pair")
    with torch.no_grad():
        logits = pairform.load(tmp_path / "pair")(IDS, decoder_input_ids=IDS).logits
        torch.testing.assert_close(logits, pairform.load(source)(IDS).logits)


READING: dict[str, dict[str, Any]] = {
    "a block in the cycle": {"cycle": [own(**attention(mask={"causal": True})), {}]},
    "an order in the cycle": {"cycle": [{"order": ["feed_forward", "self_attention"]}, {}]},
    "heads in the cycle": {"cycle": [own(heads=8, kv_heads=4, head_dim=4), {}]},
    "parallel branches": {"overrides": [{"layers": [1], "patch": {"order": [["self_attention", "feed_forward"]]}}]},
    "a layer without attention": {"overrides": [{"layers": [2], "patch": {"branches": {"self_attention": None}}}]},
}


@torch.no_grad()
@pytest.mark.parametrize("where", READING)
@pytest.mark.parametrize("attention_to_source", ["separate", "merged"])
def test_every_layer_with_attention_reads_the_source(where: str, attention_to_source: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source", alone(stack() | READING[where]))
    options: dict[str, Any] = {"source_attention": attention_to_source}
    if attention_to_source == "separate":
        options["cross_attention"] = "zero_output"
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair", **options)
    pair, whole = pairform.load(tmp_path / "pair"), pairform.load(source)
    wanted = "cross_attention" if attention_to_source == "separate" else "merged_attention"
    assert pair.spec.decoder is not None
    assert whole.spec.decoder is not None
    for layer, old in zip(pair.spec.decoder.layers, whole.spec.decoder.layers, strict=True):
        blocks = [branch.name for branch in layer.branches.values()]
        assert (wanted in blocks) == ("self_attention" in old.branches)
        if "cross_attention" in layer.branches:
            mine, cross = (layer.document()["branches"][name] for name in ("self_attention", "cross_attention"))
            assert (cross["heads"], cross["head_dim"]) == (mine["heads"], mine["head_dim"])
    if attention_to_source == "separate":
        torch.testing.assert_close(pair(IDS, decoder_input_ids=IDS).logits, whole(IDS).logits)


def test_layers_that_read_no_source_by_design_stay_so(tmp_path: Path) -> None:
    without = {"branches": {"cross_attention": None}}
    document = paired(stack(causal=False), stack(cross={}) | {"cycle": [{}, without]})
    source = saved(tmp_path / "source", document)
    for chosen, expected in (("separate", "cross_attention"), ("merged", "merged_attention")):
        plan = pairform.plan(encoder=source, decoder=source, source_attention=chosen)
        assert plan.spec.decoder is not None
        reads = [expected in {branch.name for branch in layer.branches.values()} for layer in plan.spec.decoder.layers]
        assert reads == [True, False] * 2


RESIDUALS: dict[str, tuple[dict[str, Any], bool]] = {
    "add": ({"name": "add"}, True),
    "scaled": ({"name": "scaled", "scale": 0.5, "learned": "vector"}, True),
    "gated": ({"name": "gated"}, False),
}


@torch.no_grad()
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("where", ["template", "override"])
def test_a_silent_branch_is_silent_or_refused(residual: str, where: str, tmp_path: Path) -> None:
    spec, silent = RESIDUALS[residual]
    changed = (
        stack(residual=spec) if where == "template" else stack() | {"overrides": [{"layers": [2], "patch": {"residual": spec}}]}
    )
    source = saved(tmp_path / "source", alone(changed))
    options: dict[str, Any] = {"encoder": source, "decoder": source, "cross_attention": "zero_output"}
    if not silent:
        refused(
            lambda: pairform.plan(**options), f"decoder.layers[{2 if where == 'override' else 0}].residual", "'gated'", "add"
        )
        return
    pairform.convert(**options, out=tmp_path / "pair")
    logits = pairform.load(tmp_path / "pair")(IDS, decoder_input_ids=IDS).logits
    torch.testing.assert_close(logits, pairform.load(source)(IDS).logits)


def test_attention_that_cannot_become_an_encoders_or_read_a_source_is_refused(tmp_path: Path) -> None:
    retention: dict[str, Any] = {"branches": {"self_attention": {"name": "retention", "heads": 4, "mask": {"causal": True}}}}
    plain, recurrent = saved(tmp_path / "plain", alone(stack())), saved(tmp_path / "recurrent", alone(stack(**retention)))
    mixed = stack() | {"overrides": [{"layers": [3], "patch": {"branches": {"self_attention": None, "other": retention}}}]}
    refused(lambda: pairform.plan(encoder=recurrent, decoder=plain), "encoder", "causal", "bidirectional")
    refused(lambda: pairform.plan(encoder=plain, decoder=recurrent), "decoder.layer.branches", "retention", "self_attention")
    mixed["layer"]["order"] = ["self_attention", "other", "feed_forward"]
    mixed["overrides"][0]["patch"]["branches"]["other"] = retention["branches"]["self_attention"]
    some = saved(tmp_path / "some", alone(mixed))
    refused(lambda: pairform.plan(encoder=plain, decoder=some), "decoder.layer.branches", "retention")
