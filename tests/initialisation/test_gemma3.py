"""Gemma 3 sources become a T5Gemma 2: what is kept, what is edited, and what is asked for in vain."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
from tests.broken.damage import contents, refused
from tests.checkpoints import gemma2, gemma3, gemma3_text
from tests.initialisation.sources import rows, tensors
from tests.parity.compare import FLOAT32, batch, error

KEPT = 1e-5
"""Largest difference between a stack and its source over the source's largest value."""
REAL: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
"""The real vocabulary at the smallest width, for the edits that concern its ids."""
REAL_IDS: dict[str, Any] = {"boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144}
UNSCALED = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma3_text(tmp_path_factory.mktemp("text") / "gemma")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma3_text(tmp_path_factory.mktemp("other") / "gemma", seed=1)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma3(tmp_path_factory.mktemp("real") / "gemma", text=REAL, **REAL_IDS)


def edits(plan: pairform.Plan) -> dict[str, tuple[Any, Any]]:
    return {edit.path: (edit.before, edit.after) for edit in plan.edits}


def check_source_unread(pair: pairform.Model, source: Path, **rest: Any) -> None:
    """With every key of the encoder masked, the decoder computes what its source does."""
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(source)
    read, written = batch(), batch(1, padding="right")
    with torch.no_grad():
        got = pair(read.ids, torch.zeros_like(read.mask), **written.decoder_inputs, **rest).logits
        assert error(got, theirs(**written.inputs).logits, written.real) <= KEPT


def test_the_decoder_is_its_source_where_the_encoder_is_masked(source: Path, other: Path, tmp_path: Path) -> None:
    patch = {"tie_embeddings": False, "head": {"tie": "decoder"}}  # or the decoder would have the encoder's embedding
    pairform.convert(encoder=other, decoder=source, out=tmp_path / "pair", patch=patch)
    check_source_unread(pairform.load(tmp_path / "pair"), source)
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "tied")
    check_source_unread(pairform.load(tmp_path / "tied"), source)


def test_the_encoder_under_its_sources_mask_is_its_source(source: Path, tmp_path: Path) -> None:
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair")
    old = pairform.load_spec(source).document()["decoder"]
    causal = {"encoder": {"layer": old["layer"], "cycle": old["cycle"], "overrides": old["overrides"]}}
    ours = pairform.load(tmp_path / "pair", patch=causal)
    theirs = transformers.Gemma3TextModel.from_pretrained(source)
    read = batch(padding="right")
    with torch.no_grad():
        got = ours(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state
        assert error(got, theirs(**read.inputs).last_hidden_state, read.real) <= KEPT


@pytest.mark.parametrize("source_attention", ["auto", "separate"])
@torch.no_grad()
def test_an_encoder_such_as_embeddinggemma_stays_as_it_is(source: Path, source_attention: Any, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"use_bidirectional_attention": True, "sliding_window": 5, "rope_parameters": UNSCALED}
    folder = gemma3_text(tmp_path / "encoder", "Gemma3TextModel", seed=2, **changes)
    pairform.convert(encoder=folder, decoder=source, out=tmp_path / "pair", source_attention=source_attention)
    ours, theirs = pairform.load(tmp_path / "pair"), transformers.Gemma3TextModel.from_pretrained(folder)
    read = batch(padding="right")
    got = ours(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state
    assert error(got, theirs(**read.inputs).last_hidden_state, read.real) <= KEPT
    assert ours.generate(**read.inputs, max_new_tokens=2).shape[1] == 3  # the first is bos


def test_edits_that_are_not_weights_are_in_the_plan(tmp_path: Path) -> None:
    folder = gemma3_text(tmp_path / "gemma", sliding_window=5, rope_parameters=UNSCALED)
    plan = pairform.plan(encoder=folder, decoder=folder)
    found = edits(plan)
    assert found["encoder.layer.branches.self_attention.mask.causal"] == (True, False)
    assert found["decoder.layer.branches.self_attention.name"] == ("self_attention", "merged_attention")
    assert found["tie_embeddings"] == (False, True)
    assert found["head.tie"] == ("decoder", "encoder")
    for part, windows in (("encoder", [(2, 2), None]), ("decoder", [(4, 4), None])):
        layers = plan.spec.stacks[part].layers
        own: list[Any] = [layers[index].branches["self_attention"] for index in (0, 2)]
        assert [branch.mask.window for branch in own] == windows
        assert [branch.position.scaling.name for branch in own] == ["default", "linear"]
        assert own[1].position.scaling.factor == 8.0


def test_ids_of_the_real_vocabulary(real: Path, tmp_path: Path) -> None:
    pairform.convert(encoder=real, decoder=real, out=tmp_path / "pair")
    plan = pairform.plan(encoder=real, decoder=real)
    found = edits(plan)
    for part in ("encoder", "decoder"):
        assert found[f"{part}.vocabulary"] == (262208, 262144)
        assert found[f"{part}.embedding.end_of_image"] == (None, 256000)
    assert found["encoder.vision.image_token"] == (262144, 256001)
    assert found["decoder.vision"][1] is None
    row = rows(plan)["encoder.embedding.end_of_image"]
    assert row.operation.summary == "row 256000 times 2.82843"
    made, old = tensors(tmp_path / "pair"), tensors(real)
    table = old["decoder.embedding.weight"]
    assert made["encoder.embedding.weight"].equal(table[:262144])
    torch.testing.assert_close(made["encoder.embedding.end_of_image"], table[256000] * 8**0.5, rtol=1e-7, atol=0)


@torch.no_grad()
def test_the_end_of_an_image_is_as_in_the_source(real: Path, tmp_path: Path) -> None:
    pairform.convert(encoder=real, decoder=real, out=tmp_path / "pair")
    old = pairform.load_spec(real).document()["decoder"]
    ours = pairform.load(tmp_path / "pair", patch={"encoder": {field: old[field] for field in ("layer", "cycle", "overrides")}})
    theirs: Any = transformers.Gemma3ForConditionalGeneration.from_pretrained(real)
    read = batch(vocabulary=90)
    read.ids[:, ::3] = 256000
    got = ours(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state
    expected = theirs.model(**read.inputs).last_hidden_state
    assert error(got, expected) <= KEPT


@torch.no_grad()
def test_transformers_loads_the_pair_strictly_and_computes_the_same(tmp_path: Path) -> None:
    source = gemma3(tmp_path / "gemma")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair", format="transformers")
    theirs, info = transformers.T5Gemma2ForConditionalGeneration.from_pretrained(tmp_path / "pair", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = pairform.load(tmp_path / "pair")
    read = batch(padding="right", vocabulary=90)
    ids = read.ids.masked_fill((read.ids == 5) | (read.ids == 6), 7)
    ids[:, 1:5], ids[:, 0] = 6, 5
    mask = (ids != 0).long()
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(3, 3, 16, 16),
        "decoder_input_ids": batch(1).ids,
    }
    assert error(ours(**inputs).logits, theirs(**inputs).logits) <= FLOAT32


def test_vision_from_the_encoders_source_from_a_third_or_fresh(source: Path, tmp_path: Path) -> None:
    seeing = gemma3(tmp_path / "seeing", seed=3)
    wide = gemma3(tmp_path / "wide", seed=4, text={"hidden_size": 48})
    for encoder, vision, origin in ((seeing, None, "encoder"), (source, seeing, "vision")):
        plan = pairform.plan(encoder=encoder, decoder=source, vision=vision)
        made = {name: row for name, row in rows(plan).items() if ".vision." in name}
        assert made
        assert {row.source.role for row in made.values()} == {origin}
    planned = rows(pairform.plan(encoder=source, decoder=source, vision=wide))
    assert planned["encoder.vision.projector.weight"].operation.name == "fresh"
    assert planned["encoder.vision.projector.norm.weight"].operation.name == "copy"
    spec = pairform.plan(encoder=seeing, decoder=source).spec
    drawn = rows(pairform.plan(encoder=source, decoder=source, spec=spec))
    assert {row.operation.name for name, row in drawn.items() if ".vision." in name} == {"fresh"}
    assert not any(".vision." in name for name in rows(pairform.plan(encoder=source, decoder=seeing)))


def test_vision_asked_for_in_vain(source: Path, tmp_path: Path) -> None:
    refused(lambda: pairform.plan(encoder=source, decoder=source, vision=source), "vision", "reads no pictures")
    seeing = gemma3(tmp_path / "seeing")
    patch = {"encoder": {"vision": {"tower": {"layer": {"branches": {"self_attention": {"heads": 4}}}}}}}
    refused(lambda: pairform.plan(encoder=seeing, decoder=source, patch=patch), "encoder.vision.tower", "heads")


@pytest.mark.parametrize("bridge", [None, "linear", "separate_keys"])
def test_unequal_sources_get_a_bridge(bridge: str | None, source: Path, tmp_path: Path) -> None:
    wide = gemma3_text(tmp_path / "wide", hidden_size=48, vocab_size=112)
    arguments: dict[str, Any] = {"encoder": wide, "decoder": source, "out": tmp_path / "new" / "pair"}
    before = contents(tmp_path)
    without = {"bridge": {"name": "none"}}
    refused(lambda: pairform.convert(**arguments, patch=without), "a source of width 48", "bridge", "separate_keys")
    assert contents(tmp_path) == before
    report = pairform.convert(**arguments, patch=None if bridge is None else {"bridge": {"name": bridge}})
    fresh: dict[str, Any] = {row.target: row.operation for row in report.plan.targets if row.kind == "fresh"}
    if bridge != "separate_keys":
        assert {name: operation.initial.std for name, operation in fresh.items()} == {"bridge.weight": 48**-0.5}
    else:
        projections = [f"self_attention.block.source_{letter}_proj.weight" for letter in "kv"]
        assert set(fresh) == {f"decoder.layers.{layer}.{name}" for layer in range(4) for name in projections}
    model = pairform.load(tmp_path / "new" / "pair")
    assert (model.spec.vocabulary_of("encoder"), model.spec.vocabulary_of("decoder")) == (112, 96)
    check_source_unread(model, source)
    assert model.generate(batch(padding="left").ids, max_new_tokens=8).shape == (3, 9)


def test_separate_keys_start_as_copies_where_widths_agree(source: Path, other: Path) -> None:
    patch = {"bridge": {"name": "separate_keys"}}
    planned = rows(pairform.plan(encoder=other, decoder=source, patch=patch))
    name = "decoder.layers.1.self_attention.block.source_k_proj.weight"
    assert planned[name].source.tensor == "decoder.layers.1.self_attention.block.k_proj.weight"
    drawn = rows(pairform.plan(encoder=other, decoder=source, patch=patch, cross_attention="random"))
    assert drawn[name].operation.name == "fresh"
    refused(lambda: pairform.plan(encoder=other, decoder=source, cross_attention="random"), "cross_attention", "auto")


def test_gemma_3_with_separate_cross_attention(source: Path, other: Path, tmp_path: Path) -> None:
    pairform.convert(
        encoder=other, decoder=source, out=tmp_path / "pair", source_attention="separate", cross_attention="zero_output"
    )
    model = pairform.load(tmp_path / "pair")
    assert model.spec.decoder is not None
    branches = model.spec.decoder.layer.branches
    assert branches["cross_attention"].document()["qk_norm"] == branches["self_attention"].document()["qk_norm"]
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(source)
    read, written = batch(), batch(1)
    with torch.no_grad():
        got = model(**read.inputs, **written.decoder_inputs).logits
        assert error(got, theirs(**written.inputs).logits) <= KEPT


def test_gemma_2_with_merged_attention(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "gemma2")
    pairform.convert(encoder=source, decoder=source, out=tmp_path / "pair", source_attention="merged")
    model = pairform.load(tmp_path / "pair")
    own: Any = model.spec.stacks["decoder"].layer.branches["self_attention"]
    assert (own.name, own.softcap) == ("merged_attention", 50.0)
    check_source_unread(model, source)


def test_rows_are_scaled_in_the_dtype_of_the_source(tmp_path: Path) -> None:
    """As the embedding itself rounds its factor."""
    folder = gemma3_text(tmp_path / "gemma", dtype=torch.bfloat16)
    patch = {part: {"embedding": {"end_of_image": 5}} for part in ("encoder", "decoder")}
    pairform.convert(encoder=folder, decoder=folder, out=tmp_path / "pair", patch=patch)
    made, table = tensors(tmp_path / "pair"), tensors(folder)["decoder.embedding.weight"]
    assert made["encoder.embedding.end_of_image"].equal(table[5] * torch.tensor(32**0.5, dtype=torch.bfloat16))
