"""One embedding for encoder, decoder and head, and the row of its own that ends an image."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.merged.pairs import VOCABULARY, pair, texts, wide

END_OF_IMAGE = 5
TABLE = "encoder.embedding.weight"
ROW = "encoder.embedding.end_of_image"


def tied(end_of_image: int | None = END_OF_IMAGE, **model: Any) -> dict[str, Any]:
    """T5Gemma 2's way: merged attention, one embedding, whose table is the head's too."""
    document = pair(**model) | {"tie_embeddings": True, "head": {"name": "lm", "tie": "decoder"}}
    for part in ("encoder", "decoder"):
        document[part]["embedding"]["end_of_image"] = end_of_image
    return document


def ids(seed: int, rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.stack(texts(seed, (length,) * rows))


def one_table(model: pairform.Model) -> bool:
    """One parameter where all three look, and no other of an embedding or the head."""
    assert model.encoder is not None
    assert model.decoder is not None
    names = {name for name, _ in model.named_parameters() if "embedding" in name or name.startswith("head")}
    same = model.encoder.embedding is model.decoder.embedding and model.tied() is model.get_parameter(TABLE)
    return same and names == {TABLE, ROW}


@pytest.mark.parametrize("tie", ["encoder", "decoder"])
def test_there_is_one_table_and_it_is_saved_once(tie: str, tmp_path: Path) -> None:
    model = wide(tied() | {"head": {"name": "lm", "tie": tie}}, torch.float32)
    assert one_table(model)
    separate = tied() | {"tie_embeddings": False}
    counts = [pairform.inspect(document).parameters["total"] for document in (separate, tied())]
    assert counts[0] - counts[1] == VOCABULARY * 32 + 32
    assert counts[1] == sum(parameter.numel() for parameter in model.parameters())
    pairform.save(model, tmp_path / "model")
    assert pairform.verify(tmp_path / "model").ok
    again = pairform.load(tmp_path / "model")
    assert one_table(again)
    assert torch.equal(again(ids(0), decoder_input_ids=ids(1)).logits, model(ids(0), decoder_input_ids=ids(1)).logits)
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 4 * counts[1] + 40_000


def test_a_step_of_training_moves_the_one_table() -> None:
    model = wide(tied(initializer_range=0.1), torch.float32).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.get_parameter(TABLE).clone()
    source, target = torch.tensor([[10, 11, END_OF_IMAGE]]), torch.tensor([[20, 21]])
    model(source, labels=target).loss.backward()
    optimiser.step()
    assert one_table(model)
    assert (model.get_parameter(TABLE) != before).any(1).all()  # the head's gradient reaches every row
    assert model.get_parameter(ROW).grad is not None


@pytest.mark.parametrize("size", [64, VOCABULARY, 130])
def test_a_resized_vocabulary_stays_tied(size: int, tmp_path: Path) -> None:
    model = wide(tied(), torch.float32)
    before = {name: value.clone() for name, value in model.named_parameters()}
    old = model(ids(0) % 60, decoder_input_ids=ids(1) % 60).logits
    assert pairform.resize_vocabulary(model, size) is model
    assert one_table(model)
    assert torch.equal(model.get_parameter(ROW), before[ROW])
    assert model.get_parameter(TABLE).shape == (size, 32)
    kept = min(size, VOCABULARY)
    assert torch.equal(model.get_parameter(TABLE)[:kept], before[TABLE][:kept])
    assert [model.spec.vocabulary_of(part) for part in ("encoder", "decoder")] == [size, size]
    new = model(ids(0) % 60, decoder_input_ids=ids(1) % 60).logits
    assert new.shape[-1] == size
    assert torch.allclose(new[..., :kept], old[..., :kept], rtol=1e-5, atol=1e-5)
    pairform.save(model, tmp_path / "model")
    again = pairform.load(tmp_path / "model")
    assert one_table(again)
    assert torch.equal(again(ids(0) % 60, decoder_input_ids=ids(1) % 60).logits, new)


def test_the_end_of_an_image_may_lie_beyond_the_vocabulary() -> None:
    """As in small models of the family, which have the row all the same."""
    model = pairform.build(tied(VOCABULARY + 1), seed=0)
    assert model.get_parameter(ROW).shape == (32,)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"width": 64}, ["tie_embeddings", "(96, 64) and (96, 32)", "one width"]),
        ({"vocabulary": 128}, ["tie_embeddings", "(128, 32) and (96, 32)", "one vocabulary"]),
        ({"embedding": {"scale": 2.0}}, ["decoder.embedding", "another than the encoder's"]),
        ({"embedding": {"end_of_image": None}}, ["decoder.embedding", "another than the encoder's"]),
    ],
)
def test_unequal_embeddings_cannot_be_one(encoder: dict[str, Any], words: list[str]) -> None:
    spec = pairform.load_spec(tied(bridge="linear"))
    with pytest.raises(pairform.PairformError) as caught:
        pairform.patch(spec, {"encoder": encoder})
    assert [word for word in words if word not in str(caught.value)] == []


def embeddings(model: pairform.Model, tokens: torch.Tensor) -> torch.Tensor:
    """What the encoder's first layer reads."""
    states = model(tokens, decoder_input_ids=tokens, output_hidden_states=True).encoder_hidden_states
    assert states is not None
    return states[0]


def test_the_end_of_an_image_has_a_row_of_its_own_not_scaled() -> None:
    model = wide(tied())
    tokens = torch.tensor([[7, END_OF_IMAGE, 9, END_OF_IMAGE]])
    seen = embeddings(model, tokens)
    scaled = model.get_parameter(TABLE) * torch.tensor(32**0.5, dtype=torch.float64)
    assert torch.equal(seen[0, 1::2], model.get_parameter(ROW).expand(2, -1))
    assert torch.equal(seen[0, ::2], scaled[[7, 9]])
    without = pairform.build(tied(None), dtype=torch.float64)
    without.load_state_dict({name: value for name, value in model.state_dict().items() if not name.endswith("of_image")})
    assert torch.equal(embeddings(without, tokens)[0], scaled[tokens[0]])
    text = ids(0) + (ids(0) == END_OF_IMAGE)
    assert torch.equal(embeddings(without, text), embeddings(model, text))


def test_its_row_is_trained_where_it_is_read() -> None:
    model = wide(tied() | {"head": {"name": "lm"}})
    for token, trained in ((END_OF_IMAGE, True), (END_OF_IMAGE + 1, False)):
        model.zero_grad()
        model(torch.tensor([[7, token, 9]]), labels=torch.tensor([[11, 12]])).loss.backward()
        row, table = model.get_parameter(ROW).grad, model.get_parameter(TABLE).grad
        assert row is not None
        assert table is not None
        assert bool(row.any()) is trained
        assert bool(table[token].any()) is not trained
