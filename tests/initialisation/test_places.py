"""What a layer computes by its place, it computes wherever it moves, and the spec says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pairform
from pairform.registry import read_json
from tests.broken.damage import refused
from tests.initialisation.small_models import IDS, alone, attention, paired, saved, stack

DEEPNORM: dict[str, Any] = {"placement": "post", "residual": {"name": "deepnorm"}}
DIFFERENTIAL = {"branches": {"self_attention": attention("differential_attention", mask={"causal": True})}}
KINDS: dict[str, dict[str, Any]] = {
    "deepnorm": DEEPNORM,
    "differential": DIFFERENTIAL,
    "drop path": {"drop_path": {"rate": 0.4}},
}


def facts(layer: nn.Module) -> list[float]:
    """What the parts of a layer took from its place."""
    found = []
    for name in ("self_attention", "feed_forward"):
        branch: Any = layer.get_submodule(name)
        parts = (branch.residual, "alpha"), (branch.residual, "beta"), (branch.block, "lambda_start"), (branch, "drop_path")
        found += [getattr(part, field) for part, field in parts if hasattr(part, field)]
    return found


def facts_of(model: pairform.Model, part: str, layers: list[int] | None = None) -> list[list[float]]:
    modules = list(model.get_submodule(f"{part}.layers").children())
    return [facts(modules[index]) for index in (range(len(modules)) if layers is None else layers)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["every:2", "1,2,3", "first:2", None])
def test_layers_that_are_kept_compute_as_in_their_source(kind: str, rule: str | None, tmp_path: Path) -> None:
    kept = {"every:2": [0, 2], "1,2,3": [1, 2, 3], "first:2": [0, 1], None: [0, 1, 2, 3]}[rule]
    source = saved(tmp_path / "source", alone(stack(**KINDS[kind])))
    plain = saved(tmp_path / "plain", alone(stack(3)))
    expected = facts_of(pairform.load(source), "decoder", kept)
    options: dict[str, Any] = {} if rule is None else {"encoder_layers": rule}
    report = pairform.convert(encoder=source, decoder=plain, out=tmp_path / "encoder", **options)
    pair = pairform.load(tmp_path / "encoder")
    assert facts_of(pair, "encoder") == expected
    by_place = facts_of(
        pairform.build(report.plan.spec.document() | {"encoder": bare(report.plan.spec, kind, len(kept))}), "encoder"
    )
    said = any(edit.path.startswith(("encoder.overrides", "encoder.layer.residual")) for edit in report.plan.edits)
    assert said == (by_place != expected), "an edit where the new place would change it, and only there"


@pytest.mark.parametrize("kind", ["deepnorm", "drop path"])
def test_a_decoder_that_comes_to_read_a_source_computes_as_alone(kind: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source", alone(stack(**KINDS[kind])))
    plan = pairform.plan(encoder=saved(tmp_path / "plain", alone(stack(3))), decoder=source, decoder_layers="1,2,3")
    assert facts_of(pairform.build(plan.spec), "decoder") == facts_of(pairform.load(source), "decoder", [1, 2, 3])


def bare(spec: pairform.ModelSpec, kind: str, depth: int) -> dict[str, Any]:
    """The encoder of a pair as if its layers had always stood there."""
    return stack(depth, causal=False, **KINDS[kind]) | {"embedding": {"name": "token", "scale_given": True}}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_that_loses_layers_runs_as_its_source_without_them(kind: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source", paired(stack(3, causal=False), stack(4, cross={}, **KINDS[kind])))
    pairform.convert(encoder=source, decoder=source, decoder_layers="0,2,3", out=tmp_path / "pair")
    whole, pair = pairform.load(source), pairform.load(tmp_path / "pair")
    assert facts_of(pair, "decoder") == facts_of(whole, "decoder", [0, 2, 3])
    assert whole.decoder is not None
    whole.decoder.layers = nn.ModuleList(whole.decoder.layers[index] for index in (0, 2, 3))
    torch.testing.assert_close(pair(IDS, decoder_input_ids=IDS).logits, whole(IDS, decoder_input_ids=IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "decoder"), [(6, 2), (2, 5)])
def test_an_encoder_with_deepnorm_is_the_same_alone(encoder: int, decoder: int, tmp_path: Path) -> None:
    pair = saved(tmp_path / "pair", paired(stack(encoder, causal=False, **DEEPNORM), stack(decoder, cross={}, **DEEPNORM)))
    pairform.extract(pair, tmp_path / "encoder")
    whole, alone_ = pairform.load(pair), pairform.load(tmp_path / "encoder")
    assert facts_of(alone_, "encoder") == facts_of(whole, "encoder")
    expected = whole(IDS, decoder_input_ids=IDS).encoder_last_hidden_state
    torch.testing.assert_close(alone_(IDS).last_hidden_state, expected)
    residual = alone_.spec.document()["encoder"]["layer"]["residual"]
    assert residual["alpha"] == facts_of(whole, "encoder")[0][0]
    told = read_json(tmp_path / "encoder" / "provenance.json")["edits"]
    assert [edit["path"] for edit in told] == ["encoder.layer.residual.alpha", "encoder.layer.residual.beta"]


@pytest.mark.parametrize("kind", KINDS)
def test_carry_keeps_what_the_first_layers_computed(kind: str) -> None:
    source = pairform.build(alone(stack(3, **KINDS[kind])), seed=0)
    shallower, plan = pairform.carry(source, patch={"decoder": {"depth": 2}})
    assert facts_of(shallower, "decoder") == facts_of(source, "decoder", [0, 1])
    assert plan.spec == shallower.spec
    deeper, _ = pairform.carry(source, patch={"decoder": {"depth": 4}})
    assert facts_of(deeper, "decoder", [0, 1, 2]) == facts_of(source, "decoder")
    assert facts_of(deeper, "decoder", [3]) == facts_of(pairform.build(alone(stack(4, **KINDS[kind]))), "decoder", [3])
    back, _ = pairform.carry(shallower, alone(stack(2, **KINDS[kind])))
    assert facts_of(back, "decoder") == facts_of(pairform.build(back.spec), "decoder")
    assert pairform.carry(source, seed=5)[0].spec == source.spec, "nothing is written where nothing moves"


def test_the_other_stack_of_a_pair_counts_too() -> None:
    document = paired(stack(4, causal=False, **DEEPNORM), stack(3, cross={}, **DEEPNORM))
    source = pairform.build(document, seed=0)
    made, plan = pairform.carry(source, patch={"decoder": {"depth": 1}})
    assert facts_of(made, "encoder") == facts_of(source, "encoder")
    assert "encoder.layer.residual.alpha" in {edit.path for edit in plan.edits}


CHOSEN: dict[str, tuple[dict[str, Any], str, float]] = {
    "deepnorm": ({"layer": {"residual": {"alpha": 3.0}}}, "residual.alpha", 3.0),
    "differential": ({"layer": {"branches": {"self_attention": {"lambda_init": 0.5}}}}, "block.lambda_start", 0.5),
    "drop path": ({"layer": {"drop_path": {"rate": 0.2}}}, "drop_path", 0.1),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_what_a_patch_says_stands(kind: str) -> None:
    patch, place, value = CHOSEN[kind]
    source = pairform.build(alone(stack(4, **KINDS[kind])), seed=0)
    made, _ = pairform.carry(source, patch={"decoder": {"depth": 2, **patch}})
    found: Any = made.get_submodule("decoder.layers.0.self_attention")
    for name in place.split("."):
        found = getattr(found, name)
    assert found == value


def reader(source_layer: int | str, depth: int = 4) -> dict[str, Any]:
    return paired(stack(4, causal=False), stack(depth, cross={"source_layer": source_layer}))


@torch.no_grad()
@pytest.mark.parametrize(
    ("source_layer", "options", "read"),
    [
        (2, {"encoder_layers": "0,2,3"}, [1, 1, 1, 1]),
        (-2, {"encoder_layers": "0,2,3"}, [1, 1, 1, 1]),
        (-3, {"encoder_layers": "first:3"}, [1, 1, 1, 1]),
        (-1, {"encoder_layers": "0,2"}, [1, 1, 1, 1]),
        ("last", {"encoder_layers": "0,2"}, [None] * 4),
        ("matching", {"decoder_layers": "1,3"}, [1, 3]),
        ("matching", {"encoder_layers": "0,2,3", "decoder_layers": "2,3"}, [1, 2]),
        ("matching", {"encoder_layers": "every:2", "decoder_layers": "every:2"}, [0, 1]),
        (1, {"decoder_layers": "1,3"}, [1, 1]),
    ],
)
def test_cross_attention_reads_the_layer_that_it_read(
    source_layer: int | str, options: dict[str, Any], read: list[int | None], tmp_path: Path
) -> None:
    source = saved(tmp_path / "source", reader(source_layer))
    plan = pairform.plan(encoder=source, decoder=source, **options)
    made = pairform.build(plan.spec, seed=0)
    found = [made.get_submodule(f"decoder.layers.{index}.cross_attention.block").source_layer for index in range(len(read))]
    assert found == read
    told = [edit for edit in plan.edits if "source_layer" in f"{edit.path} {edit.after}"]
    stays = source_layer in ("last", -1, 1) or options.get("encoder_layers") == "every:2"
    assert bool(told) != stays


def test_a_layer_that_is_read_must_be_kept(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", reader(2))
    words = "decoder.layers[0].branches.cross_attention.source_layer", "layer 2 of the encoder, which is not kept", "[0, 1, 3]"
    refused(lambda: pairform.plan(encoder=source, decoder=source, encoder_layers="0,1,3"), *words)
    refused(lambda: pairform.plan(encoder=source, decoder=source, encoder_layers="every:3"), words[0])
    merged = pairform.plan(encoder=source, decoder=source, encoder_layers="0,1,3", source_attention="merged")
    assert "source_layer" not in str(merged.spec.document()["decoder"])


def test_beside_another_encoder_a_number_is_that_encoders(tmp_path: Path) -> None:
    source, other = saved(tmp_path / "source", reader(-2)), saved(tmp_path / "other", alone(stack(6)))
    made = pairform.build(pairform.plan(encoder=other, decoder=source).spec)
    block: Any = made.get_submodule("decoder.layers.0.cross_attention.block")
    assert block.source_layer == 4
    kept = pairform.build(pairform.plan(encoder=other, decoder=source, encoder_layers="3,4").spec)
    block = kept.get_submodule("decoder.layers.0.cross_attention.block")
    assert block.source_layer == 1


def test_a_given_spec_reads_what_it_says_and_the_plan_tells_which_layer_that_was(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", reader(2))
    spec = reader(2) | {"encoder": stack(3, causal=False)}
    plan = pairform.plan(encoder=source, decoder=source, encoder_layers="0,1,3", spec=spec)
    assert plan.spec.document()["decoder"] == pairform.load_spec(spec).document()["decoder"]
    told = {edit.path: (edit.before, edit.after) for edit in plan.edits}
    layers = "layer 2 of the source's encoder", "layer 3 of the source's encoder"
    assert told["decoder.layers[0].branches.cross_attention.source_layer"] == layers
    same = pairform.plan(encoder=source, decoder=source, encoder_layers="0,1,2", spec=spec)
    assert not any("source_layer" in edit.path for edit in same.edits)


def test_carry_reads_the_same_layers_and_leaves_overrides_where_they_were() -> None:
    document = reader(-3, depth=2)
    last = [{"layers": [-1], "patch": {"branches": {"self_attention": {"mask": {"window": [2, 2]}}}}}]
    source = pairform.build(document | {"encoder": document["encoder"] | {"overrides": last}}, seed=0)
    for depth in (3, 5):
        made, plan = pairform.carry(source, patch={"encoder": {"depth": depth}})
        block: Any = made.get_submodule("decoder.layers.1.cross_attention.block")
        assert block.source_layer == 1
        assert made.spec.encoder is not None
        windows = [layer.document()["branches"]["self_attention"]["mask"].get("window") for layer in made.spec.encoder.layers]
        assert windows == [[2, 2] if index == 3 else None for index in range(depth)]
        assert any(edit.path.startswith("encoder.overrides") for edit in plan.edits)


def test_a_kept_layer_reads_the_table_that_it_read(tmp_path: Path) -> None:
    """Two tables of positions, each shared by the layers behind it; the second one's own layer is not kept."""
    position = {"name": "t5_relative", "buckets": 8, "max_distance": 16, "bidirectional": False, "shared": True}
    source = alone(stack(5, branches={"self_attention": attention(mask={"causal": True}, position=position)}))
    own = {"branches": {"self_attention": {"position": {"shared": False}}}}
    source["decoder"]["overrides"] = [{"layers": [0, 2], "patch": own}]
    folder = saved(tmp_path / "source", source)
    plan = pairform.plan(encoder=folder, decoder=folder, decoder_layers="0,1,3,4")
    rows = {row.target: row.source.tensor for row in plan.targets if row.source and "table" in row.target}
    table = "decoder.layers.{}.self_attention.block.position.table.weight".format
    assert {target: tensor for target, tensor in rows.items() if target.startswith("decoder.")} == {
        table(0): table(0),
        table(2): table(2),
    }
