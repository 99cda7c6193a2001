"""Cross-attention that reads single layers of the encoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.catalogue.decoders import check_writing
from tests.test_blocks import TINY

READ = torch.randint(3, 48, (2, 7), generator=torch.Generator().manual_seed(0))
WRITTEN = torch.randint(3, 48, (2, 5), generator=torch.Generator().manual_seed(1))
DEPTH = 3


def pair(source_layer: str | int | None = None, *overrides: Any, **patch: Any) -> pairform.Model:
    cross = {} if source_layer is None else {"source_layer": source_layer}
    decoder = {"depth": DEPTH, "layer": {"branches": {"cross_attention": cross}}, "overrides": list(overrides)}
    spec = pairform.load_spec(TINY, {"encoder": {"depth": DEPTH}, "decoder": decoder})
    return pairform.build(pairform.patch(spec, patch), seed=0)


def override(layer: int, source_layer: str | int) -> dict[str, Any]:
    return {"layers": [layer], "patch": {"branches": {"cross_attention": {"source_layer": source_layer}}}}


def truncated(model: pairform.Model, layers: int) -> Tensor:
    """What the encoder would give with only so many layers."""
    assert model.encoder is not None
    spec = pairform.patch(model.spec, {"encoder": {"depth": layers}, "decoder": {"layer": LAST, "overrides": []}})
    short = pairform.build(spec, seed=0)
    short.load_state_dict(model.state_dict(), strict=False)
    assert short.encoder is not None
    return short.encoder(READ).hidden


LAST = {"branches": {"cross_attention": {"source_layer": "last"}}}


@pytest.mark.parametrize("bridge", ["none", "linear"])
@pytest.mark.parametrize(("chosen", "layers"), [(1, [1, 1, 1]), (-3, [0, 0, 0]), ("matching", [0, 1, 2])])
def test_each_layer_reads_what_a_shorter_encoder_would_give(chosen: str | int, layers: list[int], bridge: str) -> None:
    model = pair(chosen, bridge={"name": bridge})
    seen: list[Tensor] = []
    for layer in range(DEPTH):
        k_proj = model.get_submodule(f"decoder.layers.{layer}.cross_attention.block.k_proj")
        k_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(READ, decoder_input_ids=WRITTEN)
    for found, number in zip(seen, layers, strict=True):
        torch.testing.assert_close(found, model.bridge(truncated(model, number + 1)), rtol=1e-5, atol=1e-5)


def test_the_last_layer_is_the_output_and_nothing_more_is_kept_for_it() -> None:
    usual, last = pair(), pair(-1)
    assert usual.spec.document()["decoder"]["layer"]["branches"]["cross_attention"]["source_layer"] == "last"
    outputs = [model(READ, decoder_input_ids=WRITTEN) for model in (usual, last)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert outputs[0].encoder_layers is None
    assert usual.state_dict().keys() == last.state_dict().keys()


@pytest.mark.parametrize("chosen", [0, "matching"])
def test_it_decodes_with_a_cache_as_without(chosen: str | int) -> None:
    model = pair(chosen, override(1, "last"))
    mask = torch.ones_like(READ)
    mask[1, :3] = 0
    check_writing(model, READ, mask)
    encoded = model(READ, mask, WRITTEN)
    again = model(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=WRITTEN)
    assert torch.equal(again.logits, encoded.logits)
    assert torch.equal(
        model.generate(attention_mask=mask, encoder_outputs=encoded, max_new_tokens=5),
        model.generate(READ, mask, max_new_tokens=5),
    )
    with pytest.raises(pairform.PairformError, match="encoder_outputs: found no hidden states of the encoder's layers 0"):
        model(encoder_outputs=encoded.encoder_last_hidden_state, decoder_input_ids=WRITTEN)


@pytest.mark.usefixtures("graphs_as_traced")
def test_a_compiled_step_reads_what_is_cached() -> None:
    model = pair("matching", encoder={"depth": 1}, decoder={"depth": 1})
    plain, compiled = (model.generate(READ, max_new_tokens=4, compile=chosen) for chosen in (False, True))
    assert torch.equal(plain, compiled)


def test_training_reaches_the_layers_that_are_read_also_where_they_are_computed_again() -> None:
    model = pair(0, encoder={"depth": DEPTH}).train()
    gradients = []
    for layers in ("none", "all"):
        model.checkpoint_layers(layers)
        model.zero_grad()
        model(READ, labels=WRITTEN).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert {
        name.split(".")[2] for name, gradient in gradients[0].items() if "encoder.layers" in name and gradient is not None
    } == {"0"}


def test_it_is_the_same_after_saving_and_its_cost_is_counted(tmp_path: Path) -> None:
    model = pair("matching", bridge={"name": "linear"})
    pairform.save(model, tmp_path / "model")
    again = pairform.load(tmp_path / "model")
    assert torch.equal(again(READ, decoder_input_ids=WRITTEN).logits, model(READ, decoder_input_ids=WRITTEN).logits)
    costs = [pairform.inspect(spec) for spec in (model.spec, pair(bridge={"name": "linear"}).spec)]
    assert costs[0].parameters == costs[1].parameters
    parts = [{part.name: part.flops for part in cost.tree.parts} for cost in costs]
    assert parts[0].pop("bridge") == (1 + DEPTH) * parts[1].pop("bridge")
    assert parts[0] == parts[1]
    with pytest.raises(pairform.PairformError, match="source_layer"):
        pairform.save(pair("matching"), tmp_path / "theirs", format="transformers")


@pytest.mark.parametrize(
    ("chosen", "patch", "message"),
    [
        (3, {}, "cross_attention.source_layer: found 3, expected a layer of the encoder, from -3 to 2"),
        ("matching", {"encoder": {"depth": 2}}, "found 'matching' between 2 layers of the encoder and 3 of the decoder"),
        ("first", {}, "source_layer"),
    ],
)
def test_layers_that_do_not_exist_are_refused_when_the_spec_is_read(chosen: Any, patch: dict[str, Any], message: str) -> None:
    with pytest.raises(pairform.PairformError, match=message):
        pair(chosen, **patch)
