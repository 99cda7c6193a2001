"""Token types, the norm of the embeddings, and the offset of learned positions."""

from typing import Any

import pytest
import torch

import pairform
from tests.catalogue.decoders import decoder_with

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 8, 5]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 0, 1]])
ATTENTION = {"name": "self_attention", "heads": 2, "mask": {"causal": False}}
NORM = {"name": "layernorm"}
EMBEDDED = {"token_types": 2, "embedding_norm": NORM, "position": {"name": "learned", "length": 12, "offset": 3}}


def spec(**fields: Any) -> pairform.ModelSpec:
    """An encoder with `fields`."""
    layer = {"norm": NORM, "order": ["self_attention"], "branches": {"self_attention": ATTENTION}}
    stack = {"width": 8, "depth": 1, "embedding": {"name": "token"}, "layer": layer, **fields}
    return pairform.load_spec(
        {"assembly": "encoder_only", "vocabulary": 11, "encoder": stack, "head": {"name": "none"}, "initializer_range": 0.5}
    )


def test_the_first_hidden_states_are_the_normalised_sum_of_the_vectors() -> None:
    model = pairform.build(spec(**EMBEDDED), seed=0, dtype=torch.float64)
    vectors = dict(model.named_parameters())
    with torch.no_grad():
        vectors["encoder.embedding_norm.weight"].uniform_(0.5, 1.5)
    places = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]) + 3
    tables = ("embedding", IDS), ("token_types", TYPES), ("position", places)
    whole = sum(vectors[f"encoder.{name}.weight"][index] for name, index in tables)
    scale, shift = (vectors[f"encoder.embedding_norm.{name}"] for name in ("weight", "bias"))
    expected = torch.nn.functional.layer_norm(torch.as_tensor(whole), [8], scale, shift)
    states = model(IDS, MASK, token_type_ids=TYPES, output_hidden_states=True).hidden_states
    assert states is not None
    torch.testing.assert_close(states[0][MASK.bool()], expected[MASK.bool()])
    given = model(inputs_embeds=vectors["encoder.embedding.weight"][IDS], attention_mask=MASK, token_type_ids=TYPES)
    torch.testing.assert_close(given.last_hidden_state, model(IDS, MASK, token_type_ids=TYPES).last_hidden_state)
    assert torch.equal(model(IDS).last_hidden_state, model(IDS, token_type_ids=torch.zeros_like(IDS)).last_hidden_state)


@pytest.mark.usefixtures("graphs_as_traced")
def test_they_compile_to_one_graph() -> None:
    model = pairform.build(spec(**EMBEDDED), seed=0)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(
        compiled(IDS, MASK, token_type_ids=TYPES).last_hidden_state, model(IDS, MASK, token_type_ids=TYPES).last_hidden_state
    )


def test_the_encoder_of_a_pair_reads_types_and_its_decoder_type_0() -> None:
    document = decoder_with({"name": "rope"}).document()
    decoder = document["decoder"] | {"token_types": 2}
    cross = {"cross_attention": {"name": "cross_attention", "heads": 2}}
    decoder["layer"] = pairform.load_spec(document).document()["decoder"]["layer"]
    decoder["layer"]["order"] = ["cross_attention", *decoder["layer"]["order"]]
    decoder["layer"]["branches"] |= cross
    encoder = document["decoder"] | {"token_types": 3}
    pair = document | {"assembly": "encoder_decoder", "encoder": encoder, "decoder": decoder, "tokens": {"pad": 0, "bos": 1}}
    pair["head"] = {"name": "lm"}
    model = pairform.build(pair, seed=0)
    types = 2 * TYPES
    output = model(IDS, decoder_input_ids=IDS, token_type_ids=types)
    assert not torch.allclose(output.logits, model(IDS, decoder_input_ids=IDS).logits)
    written = model.generate(IDS, token_type_ids=types, max_new_tokens=3)
    encoded = model(IDS, decoder_input_ids=IDS, token_type_ids=types)
    assert torch.equal(written, model.generate(encoder_outputs=encoded, max_new_tokens=3))
    with pytest.raises(pairform.PairformError, match="token_type_ids: found an input of the encoder together with"):
        model(encoder_outputs=encoded, decoder_input_ids=IDS, token_type_ids=types)


@pytest.mark.parametrize(
    ("fields", "types", "message"),
    [
        ({}, TYPES, "token_type_ids: found types for a stack without any.*segment_ids"),
        ({"token_types": 2}, TYPES + 1, "found the token type 2, expected types from 0 to 1"),
        ({"token_types": 2}, TYPES - 1, "found the token type -1"),
        ({"token_types": 2}, TYPES[:, :3], r"found the shape \(2, 3\)"),
        ({"token_types": 2}, TYPES.bool(), "found bool, expected token types in int64"),
        ({"token_types": 2}, TYPES.float(), "found float32, expected integers"),
    ],
)
def test_wrong_types_are_an_error(fields: dict[str, Any], types: torch.Tensor, message: str) -> None:
    with pytest.raises(pairform.PairformError, match=message):
        pairform.build(spec(**fields), seed=0)(IDS, token_type_ids=types)


def test_a_prompt_has_no_types() -> None:
    document = decoder_with({"name": "rope"}).document()
    document["decoder"]["token_types"] = 2
    model = pairform.build(document, seed=0)
    assert not torch.allclose(model(IDS, token_type_ids=TYPES).logits, model(IDS).logits)
    with pytest.raises(pairform.PairformError, match="token_type_ids: found types of a prompt"):
        model.generate(IDS, token_type_ids=TYPES, max_new_tokens=1)


def test_an_offset_shortens_the_longest_sequence() -> None:
    model = pairform.build(spec(position={"name": "learned", "length": 7, "offset": 3}), seed=0)
    with pytest.raises(pairform.PairformError, match="the position 4, expected positions below 4"):
        model(IDS)
    with pytest.raises(pairform.PairformError, match="offset: found 7, expected less than the table's length of 7"):
        spec(position={"name": "learned", "length": 7, "offset": 7})
