"""A model rebuilt with another block keeps every weight that still fits, and says of each tensor where it comes from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.broken.damage import contents, refused
from tests.command_line.runner import CommandLine, document
from tests.initialisation.sources import bits, rows, tensors
from tests.small_pairs import small_pair, tokens

LAYER = {"residual": {"name": "scaled"}, "norm": {"name": "layernorm"}}


def model(seed: int = 3, **changes: Any) -> pairform.Model:
    return pairform.build(small_pair(**changes), seed=seed)


def state(made: pairform.Model) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in made.named_parameters()}


def branches(part: str, **specs: Any) -> dict[str, Any]:
    """A patch on branches of all layers of a stack."""
    return {part: {"layer": {"branches": specs}}}


def merged(bridge: str) -> dict[str, Any]:
    own = branches("decoder", self_attention={"name": "merged_attention"}, cross_attention=None)
    return own | {"bridge": {"name": bridge}}


PAIRS: dict[str, pairform.ModelSpec] = {
    "separate": small_pair(),
    "merged": small_pair("t5gemma2-270m-270m"),
    "layers of another kind": small_pair(
        encoder={"layer": LAYER}, decoder={"layer": LAYER, "position": {"name": "sinusoidal"}}
    ),
    "unequal": small_pair(encoder={"width": 48}, bridge={"name": "linear"}),
    "untied": small_pair(head={"tie": None}),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_the_same_spec_is_the_identity(kind: str) -> None:
    source = pairform.build(PAIRS[kind], seed=3)
    made, plan = pairform.carry(source, source.spec, seed=9)
    assert made.spec == source.spec
    old, new = state(source), state(made)
    assert list(old) == list(new)
    assert all(bits(old[name]) == bits(new[name]) for name in old)
    assert all(old[name].data_ptr() != new[name].data_ptr() for name in old)
    assert {kind: total["tensors"] for kind, total in plan.totals.items() if total["tensors"]} == {"copied": len(old)}
    ids = tokens()
    assert made(ids, decoder_input_ids=ids).logits.equal(source(ids, decoder_input_ids=ids).logits)


SWAPS: dict[str, tuple[dict[str, Any], str]] = {
    "feed forward": (branches("decoder", feed_forward={"name": "mlp"}), r"decoder.layers.\d.feed_forward.block."),
    "attention": (
        branches("encoder", self_attention={"name": "differential_attention"}),
        r"encoder.layers.\d.self_attention.block.",
    ),
    "norm": ({"decoder": {"layer": {"norm": {"name": "layernorm"}}}}, r"decoder.*norm"),
    "residual": ({"encoder": {"layer": {"residual": {"name": "gated"}}}}, r"encoder.layers.\d.\w+.residual"),
    "norms of queries": (branches("encoder", self_attention={"qk_norm": {"name": "rmsnorm"}}), r"encoder.*[qk]_norm"),
    "embedding": ({"encoder": {"embedding": {"name": "factorised", "rank": 32}}}, r"encoder.embedding"),
    "position": ({"encoder": {"position": {"name": "learned", "length": 20}}}, r"encoder.position"),
    "head": ({"head": {"name": "sequence_classification", "labels": 3}}, r"head."),
    "bias": (branches("decoder", cross_attention={"bias": True}), r"decoder.layers.\d.cross_attention.block.*bias"),
}


@pytest.mark.parametrize("kind", SWAPS)
def test_a_swap_leaves_every_other_tensor_as_it_was(kind: str) -> None:
    """And what it brings is drawn as in a model built anew."""
    import re

    patch, place = SWAPS[kind]
    source = model()
    made, plan = pairform.carry(source, patch=patch, seed=9)
    anew, old = state(pairform.build(made.spec, seed=9)), state(source)
    drawn = {row.target for row in plan.targets if row.kind == "fresh"}
    assert drawn
    assert all(re.match(place, name) for name in drawn)
    for name, tensor in state(made).items():
        assert bits(tensor) == bits(anew[name] if name in drawn else old[name])
    dropped = {row.source.tensor for row in plan.origins if row.dropped}
    assert dropped == {name for name in old if name not in anew or name in drawn}
    assert plan.edits


def test_norms_inside_a_mixture_are_kept_where_they_are_of_one_kind() -> None:
    norms = {"pre_norm": {"name": "rmsnorm"}, "post_norm": {"name": "rmsnorm"}}
    experts = {"name": "mixture", "experts": 2, "expert": {"name": "gated", "hidden": 8}, **norms}
    source = model(**branches("decoder", feed_forward=experts))
    changed = {"pre_norm": {"eps": 1e-3}, "post_norm": {"unit_offset": True}}
    _, plan = pairform.carry(source, patch=branches("decoder", feed_forward=changed))
    drawn = {row.target for row in plan.targets if row.kind == "fresh"}
    layers = source.spec.stacks["decoder"].depth
    assert drawn == {f"decoder.layers.{layer}.feed_forward.block.post_norm.weight" for layer in range(layers)}


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_key_heads_change_as_convert_changes_them(heads: int, tmp_path: Path) -> None:
    source = model(depth=3)
    pairform.save(source, tmp_path / "source")
    patch = {part: branches(part, self_attention={"kv_heads": heads})[part] for part in ("encoder", "decoder")}
    made, plan = pairform.carry(source, patch=patch)
    spec = pairform.patch(source.spec, patch)
    pairform.convert(encoder=tmp_path / "source", decoder=tmp_path / "source", spec=spec, out=tmp_path / "converted")
    converted = tensors(tmp_path / "converted")
    assert all(bits(tensor) == bits(converted[name]) for name, tensor in state(made).items())
    assert plan.totals["derived"]["tensors"] == (0 if heads == 2 else 3 * 2 * 2)


def test_a_shallower_model_keeps_the_first_layers_and_a_deeper_one_draws_the_others() -> None:
    source = model(depth=2)
    deeper, plan = pairform.carry(source, patch={"decoder": {"depth": 3}}, seed=5)
    drawn = {row.target for row in plan.targets if row.kind == "fresh"}
    assert drawn == {name for name in state(deeper) if name.startswith("decoder.layers.2.")}
    anew = state(pairform.build(deeper.spec, seed=5))
    assert all(state(deeper)[name].equal(anew[name]) for name in drawn)
    back, plan = pairform.carry(deeper, source.spec)
    assert all(bits(tensor) == bits(state(source)[name]) for name, tensor in state(back).items())
    assert {row.source.tensor: row.dropped for row in plan.origins if row.dropped} == dict.fromkeys(
        drawn, "layer 2 is not kept"
    )


@pytest.mark.parametrize("bridge", ["none", "separate_keys"])
def test_merged_attention_out_of_separate_and_back(bridge: str) -> None:
    """Merged attention has the decoder's own projections; a bridge keeps the source's beside them, so that they come back."""
    source = model()
    together, plan = pairform.carry(source, patch=merged(bridge), seed=5)
    own, cross = "decoder.layers.1.self_attention.", "decoder.layers.1.cross_attention."
    assert plan.totals["fresh"]["tensors"] == 0
    for name, tensor in state(together).items():
        assert tensor.equal(state(source)[name.replace("self_attention.block.source_", "cross_attention.block.")])
    apart, plan = pairform.carry(together, source.spec, seed=5)
    assert plan.totals["fresh"]["tensors"] == 0
    kept = state(apart)
    assert kept[f"{own}block.q_proj.weight"].equal(state(source)[f"{own}block.q_proj.weight"])
    assert kept[f"{cross}block.q_proj.weight"].equal(kept[f"{own}block.q_proj.weight"])
    came_back = bridge == "separate_keys"
    for side in ("k", "v"):
        place = f"block.{side}_proj.weight"
        assert kept[cross + place].equal(state(source)[(cross if came_back else own) + place])


def test_keys_of_a_source_get_weights_of_their_own_that_change_nothing() -> None:
    source = model(**merged("none"))
    split, plan = pairform.carry(source, patch={"bridge": {"name": "separate_keys"}})
    assert plan.totals["fresh"]["tensors"] == 0
    ids = tokens()
    assert split(ids, decoder_input_ids=ids).logits.equal(source(ids, decoder_input_ids=ids).logits)


def test_a_branch_under_a_new_name_keeps_its_weights() -> None:
    source = model()
    mlp = source.spec.document()["decoder"]["layer"]["branches"]["feed_forward"]
    order = ["self_attention", "cross_attention", "mixing"]
    patch = {"decoder": {"layer": {"order": order, "branches": {"mixing": mlp, "feed_forward": None}}}}
    made, plan = pairform.carry(source, patch=patch)
    assert plan.totals["fresh"]["tensors"] == 0
    ids = tokens()
    assert made(ids, decoder_input_ids=ids).logits.equal(source(ids, decoder_input_ids=ids).logits)


def test_vocabularies_and_learned_positions_keep_their_first_rows() -> None:
    source = model(encoder={"position": {"name": "learned", "length": 20}})
    patch = {"vocabulary": 120, "encoder": {"position": {"length": 12}}}
    made, _ = pairform.carry(source, patch=patch, seed=5)
    old, new, anew = state(source), state(made), state(pairform.build(made.spec, seed=5))
    assert new["encoder.position.weight"].equal(old["encoder.position.weight"][:12])
    for part in ("encoder", "decoder"):
        name = f"{part}.embedding.weight"
        assert new[name][:97].equal(old[name])
        assert new[name][97:].equal(anew[name][97:])


def test_another_width_keeps_what_does_not_depend_on_it() -> None:
    source = model()
    made, plan = pairform.carry(source, patch={"encoder": {"width": 48}}, seed=5)
    drawn = {row.target for row in plan.targets if row.kind == "fresh"}
    for name, tensor in state(made).items():
        assert (tensor.shape == state(source)[name].shape) == (name not in drawn)


def test_tied_and_untied_tables() -> None:
    source = model(head={"tie": None}, tie_embeddings=True)
    tied, plan = pairform.carry(source, patch={"head": {"tie": "decoder"}})
    assert [row.source.tensor for row in plan.origins if row.dropped] == ["head.weight"]
    untied, plan = pairform.carry(tied, patch={"head": {"tie": None}, "tie_embeddings": False})
    assert plan.totals["fresh"]["tensors"] == 0
    table = state(source)["encoder.embedding.weight"]
    assert all(state(untied)[name].equal(table) for name in ("decoder.embedding.weight", "head.weight"))


def test_a_folder_is_carried_as_a_model_is_and_written_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CommandLine(monkeypatch, capsys)
    source = model().to(torch.bfloat16)
    pairform.save(source, tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    patch = branches("decoder", self_attention={"kv_heads": 1}, feed_forward={"name": "mlp"})
    held, plan = pairform.carry(source, patch=patch, seed=5)
    read, _ = pairform.carry(tmp_path / "source", patch=patch, seed=5)
    loaded, written = pairform.carry(tmp_path / "source", patch=patch, seed=5, out=tmp_path / "out")
    assert written.targets == plan.targets
    for made in (read, loaded):
        assert made.spec == held.spec
        assert all(bits(tensor) == bits(state(held)[name]) for name, tensor in state(made).items())
    assert pairform.verify(tmp_path / "out").ok
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    settings = ["--set", "decoder.layer.branches.self_attention.kv_heads=1"]
    settings += ["--set", "decoder.layer.branches.feed_forward.name=mlp"]
    told = document(run("carry", tmp_path / "source", *settings, "--seed", "5", "--out", tmp_path / "again", "--json"))
    assert told["totals"] == plan.totals
    again = tensors(tmp_path / "again")
    assert all(bits(tensor) == bits(again[name]) for name, tensor in state(held).items())
    shown = run("carry", tmp_path / "source", *settings)
    assert "mean of 2 heads" in shown.out
    assert rows(plan).keys() == {
        row["target"] for row in document(run("carry", tmp_path / "source", *settings, "--json"))["targets"]
    }


def test_a_decoder_becomes_a_pair_and_an_encoder_stands_alone() -> None:
    source = model()
    spec = source.spec.document()
    alone = {key: spec[key] for key in ("vocabulary", "tokens", "encoder")} | {
        "assembly": "encoder_only",
        "head": {"name": "none"},
    }
    encoder, plan = pairform.carry(source, alone)
    assert plan.totals["copied"]["tensors"] == len(state(encoder))
    assert {row.dropped for row in plan.origins if row.dropped} == {"of the source's decoder, which is not used"}
    pair, plan = pairform.carry(encoder, source.spec, seed=5)
    assert pair.spec == source.spec
    assert {row.source.tensor.split(".")[0] for row in plan.targets if row.source} == {"encoder"}


def test_what_cannot_be_carried_is_refused_without_a_trace(tmp_path: Path) -> None:
    source = model()
    refused(lambda: pairform.carry(source, out=tmp_path / "out"), "out", "in memory", "save")
    refused(lambda: pairform.carry(source, patch={"decoder": {"width": 0}}), "decoder.width")
    refused(lambda: pairform.carry(tmp_path / "none"), "none")
    pairform.save(source, tmp_path / "source")
    before = contents(tmp_path)
    refused(lambda: pairform.carry(tmp_path / "source", out=tmp_path / "source"), "source")
    assert contents(tmp_path) == before
