"""A call of a model that does not fit it is an error that names the argument, before anything is computed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import pairform
from tests.broken.damage import refused
from tests.catalogue.places import model as document
from tests.small_pairs import small_pair, tokens

IDS, TARGET = tokens(0, rows=2, length=6), tokens(1, rows=2, length=5)
PROMPT = IDS % 23
ONES = torch.ones(2, 6, dtype=torch.long)
FLOATS = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
WINDOW = {"branches": {"self_attention": {"mask": {"window": [2, 0]}}}}
WORDS: dict[str, Any] = {"decoder_input_ids": TARGET}
PAIR = pairform.build(small_pair(), seed=0).eval()
DECODER = pairform.build(document("decoder_only"), seed=0).eval()
ENCODER = pairform.build(document("encoder_only"), seed=0).eval()


def replaced(ids: Tensor, value: int) -> Tensor:
    changed = ids.clone()
    changed[1, 2] = value
    return changed


def filled(**inputs: Any) -> pairform.Cache:
    """A cache that holds five tokens of two rows, and their source."""
    cache = pairform.Cache()
    PAIR(**{"input_ids": IDS, **WORDS, **inputs}, cache=cache)
    return cache


NEXT = {"input_ids": IDS, "decoder_input_ids": TARGET[:, :1]}
CALLS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": ({}, ("input_ids", "nothing")),
    "a list": ({"input_ids": IDS.tolist(), **WORDS}, ("input_ids", "list", "a tensor", "torch.as_tensor")),
    "an array": ({"input_ids": np.ones((2, 6), dtype=np.int64), **WORDS}, ("input_ids", "ndarray", "torch.as_tensor")),
    "a string": ({"input_ids": "text", **WORDS}, ("input_ids", "'text'", "a tensor")),
    "float ids": ({"input_ids": IDS.float(), **WORDS}, ("input_ids", "float32", "int64")),
    "boolean ids": ({"input_ids": IDS.bool(), **WORDS}, ("input_ids", "bool", "int64")),
    "int8 ids": ({"input_ids": IDS.to(torch.int8), **WORDS}, ("input_ids", "int8", ".long()")),
    "ids of one row alone": ({"input_ids": IDS[0], **WORDS}, ("input_ids", "(6,)", "[batch, length]")),
    "an id beyond": ({"input_ids": replaced(IDS, 97), **WORDS}, ("input_ids", "97", "from 0 to 96")),
    "a negative id": ({"input_ids": replaced(IDS, -1), **WORDS}, ("input_ids", "-1", "from 0 to 96")),
    "an id beyond in the decoder": (
        {"input_ids": IDS, "decoder_input_ids": replaced(TARGET, 400)},
        ("decoder_input_ids", "400"),
    ),
    "no rows": ({"input_ids": IDS[:0], "decoder_input_ids": TARGET[:0]}, ("input_ids", "(0, 6)", "at least one")),
    "an empty source": ({"input_ids": IDS[:, :0], **WORDS}, ("input_ids", "(2, 0)", "at least one")),
    "an empty target": ({"input_ids": IDS, "decoder_input_ids": TARGET[:, :0]}, ("decoder_input_ids", "(2, 0)")),
    "an empty label": ({"input_ids": IDS, "labels": TARGET[:, :0]}, ("labels", "(2, 0)")),
    "ids and embeddings": ({"input_ids": IDS, "inputs_embeds": FLOATS, **WORDS}, ("inputs_embeds", "either")),
    "embeddings of another width": (
        {"inputs_embeds": FLOATS[..., :8], **WORDS},
        ("inputs_embeds", "(2, 6, 8)", "[batch, length, 32]"),
    ),
    "embeddings of another dtype": ({"inputs_embeds": FLOATS.double(), **WORDS}, ("inputs_embeds", "float64", "float32")),
    "integers as embeddings": ({"inputs_embeds": FLOATS.long(), **WORDS}, ("inputs_embeds", "int64", "floats")),
    "embeddings for the decoder": (
        {"input_ids": IDS, "decoder_inputs_embeds": FLOATS.half()},
        ("decoder_inputs_embeds", "float16"),
    ),
    "an additive mask": (
        {"input_ids": IDS, "attention_mask": torch.zeros(2, 6), **WORDS},
        ("attention_mask", "float32", "`mask == 0`"),
    ),
    "a mask of halves": ({"input_ids": IDS, "attention_mask": ONES * 0.5, **WORDS}, ("attention_mask", "float32")),
    "a mask of sevens": ({"input_ids": IDS, "attention_mask": ONES * 7, **WORDS}, ("attention_mask", "to 7", "0 at padding")),
    "a negative mask": ({"input_ids": IDS, "attention_mask": -ONES, **WORDS}, ("attention_mask", "from -1")),
    "a short mask": ({"input_ids": IDS, "attention_mask": ONES[:, :5], **WORDS}, ("attention_mask", "(2, 5)", "(2, 6)")),
    "a mask with four axes": (
        {"input_ids": IDS, "attention_mask": ONES[:, None, None], **WORDS},
        ("attention_mask", "(2, 1, 1, 6)"),
    ),
    "a list as a mask": ({"input_ids": IDS, "attention_mask": ONES.tolist(), **WORDS}, ("attention_mask", "list")),
    "a mask beside labels": (
        {"input_ids": IDS, "labels": TARGET, "decoder_attention_mask": ONES},
        ("decoder_attention_mask", "(2, 6)", "(2, 5)"),
    ),
    "negative places": ({"input_ids": IDS, "position_ids": -ONES, **WORDS}, ("position_ids", "-1", "from 0 on")),
    "float places": ({"input_ids": IDS, "position_ids": ONES.float(), **WORDS}, ("position_ids", "float32")),
    "too few places": ({"input_ids": IDS, "position_ids": ONES[:, :5], **WORDS}, ("position_ids", "(2, 5)", "(2, 6)")),
    "another number of targets": ({"input_ids": IDS[:1], **WORDS}, ("decoder_input_ids", "2 rows", "1, as in the source")),
    "another number of labels": ({"input_ids": IDS[:1], "labels": TARGET}, ("labels", "2 rows", "1, as in the source")),
    "float labels": ({"input_ids": IDS, "labels": TARGET.float()}, ("labels", "float32")),
    "labels as a list": ({"input_ids": IDS, "labels": TARGET.tolist()}, ("labels", "list")),
    "labels beyond": ({"input_ids": IDS, "labels": replaced(TARGET, 97)}, ("labels", "97")),
    "labels of another length": ({"input_ids": IDS, **WORDS, "labels": IDS}, ("labels", "(2, 6)", "(2, 5)")),
    "outputs as a string": ({"encoder_outputs": "output", **WORDS}, ("encoder_outputs", "str")),
    "outputs as an empty tuple": ({"encoder_outputs": (), **WORDS}, ("encoder_outputs", "no hidden states", "tuple")),
    "outputs as a tuple of others": ({"encoder_outputs": (None, FLOATS), **WORDS}, ("encoder_outputs", "no hidden states")),
    "outputs of another width": ({"encoder_outputs": FLOATS[..., :16], **WORDS}, ("encoder_outputs", "(2, 6, 16)", "32")),
    "outputs of another dtype": ({"encoder_outputs": FLOATS.double(), **WORDS}, ("encoder_outputs", "float64", "float32")),
    "outputs of fewer rows": ({"encoder_outputs": FLOATS[:1], **WORDS}, ("decoder_input_ids", "2 rows")),
    "outputs beside other ids": (
        {"encoder_outputs": FLOATS, "input_ids": IDS[:, :4], **WORDS},
        ("input_ids", "(2, 4)", "(2, 6)"),
    ),
    "outputs beside a longer mask": (
        {"encoder_outputs": FLOATS[:, :4], "attention_mask": ONES, **WORDS},
        ("attention_mask", "(2, 6)", "(2, 4)"),
    ),
    "outputs beside embeddings": (
        {"encoder_outputs": FLOATS, "inputs_embeds": FLOATS, **WORDS},
        ("inputs_embeds", "one or the other"),
    ),
    "nothing for the decoder": ({"input_ids": IDS}, ("decoder_input_ids", "labels")),
    "a dictionary as a cache": ({**NEXT, "cache": {}}, ("cache", "dict", "Cache")),
    "True as a cache": ({**NEXT, "cache": True}, ("cache", "bool", "Cache()")),
    "a cache of more rows": (
        {"input_ids": IDS[:1], "decoder_input_ids": TARGET[:1, :1], "cache": filled()},
        ("cache", "2 rows", "cache.rows"),
    ),
    "a cache of a shorter source": ({**NEXT, "cache": filled(input_ids=IDS[:, :5])}, ("cache", "2 rows of 5 tokens")),
    "a cache of another source": ({**NEXT, "cache": filled(input_ids=replaced(IDS, 50))}, ("cache", "another source")),
    "use_cache": ({"input_ids": IDS, **WORDS, "use_cache": True}, ("use_cache", "cache=pairform.Cache()")),
    "a misspelt argument": ({"input_id": IDS, **WORDS}, ("input_id", "Did you mean input_ids")),
    "an argument of nobody": ({"input_ids": IDS, "zebra": 1}, ("zebra", "does not take")),
    "prefix lengths as a list": ({"input_ids": IDS, **WORDS, "prefix_lengths": [1, 2]}, ("prefix_lengths",)),
    "pictures as a list": ({"input_ids": IDS, **WORDS, "pixel_values": [1]}, ("pixel_values", "list")),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_does_not_fit_is_refused(name: str) -> None:
    given, words = CALLS[name]
    assert len(refused(lambda: PAIR(**given), *words)) < 2000


def test_arguments_without_a_name_are_counted() -> None:
    refused(lambda: PAIR(IDS, ONES, TARGET, None, None, FLOATS), "forward", "6 arguments", "labels")
    refused(lambda: PAIR(IDS, input_ids=IDS), "input_ids", "twice")


ANOTHER: dict[str, dict[str, Any]] = {
    "deeper": {"decoder": {"depth": 3}},
    "wider": {"decoder": {"width": 64}},
    "of fewer key heads": {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}},
    "of another window": {"decoder": {"overrides": [{"layers": [0], "patch": WINDOW}]}},
    "of another rotation": {"decoder": {"layer": {"branches": {"self_attention": {"position": {"theta": 5.0}}}}}},
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_a_cache_of_another_model_is_refused(kind: str) -> None:
    other = pairform.build(pairform.patch(small_pair(), ANOTHER[kind]), seed=0)
    for call in (
        lambda cache: other(IDS, decoder_input_ids=TARGET[:, :1], cache=cache),
        lambda cache: other.generate(IDS, decoder_input_ids=TARGET.repeat(1, 2), max_new_tokens=2, cache=cache),
    ):
        refused(lambda call=call: call(filled()), "cache", "another model", "Cache()")  # type: ignore[misc]


def test_a_cache_of_a_decoder_is_refused_by_a_pair_and_one_in_another_dtype_by_its_own_model() -> None:
    cache = pairform.Cache()
    DECODER(PROMPT, cache=cache)
    refused(lambda: PAIR(IDS, decoder_input_ids=TARGET[:, :1], cache=cache), "cache", "another model")
    double = pairform.build(document("decoder_only"), seed=0, dtype=torch.float64)
    refused(lambda: double(PROMPT[:, :1], cache=cache), "cache", "torch.float32", "torch.float64")


def test_a_cache_is_taken_by_a_copy_and_an_empty_one_by_any_model() -> None:
    cache = pairform.Cache()
    refused(lambda: PAIR(IDS + 10**6, **WORDS, cache=cache), "input_ids")
    whole = DECODER(PROMPT).logits
    DECODER(PROMPT[:, :4], cache=cache)
    copy = pairform.build(document("decoder_only"), seed=0)
    torch.testing.assert_close(copy(PROMPT[:, 4:], cache=cache).logits, whole[:, 4:])


@pytest.mark.parametrize("name", ["encoder_outputs", "decoder_input_ids", "decoder_attention_mask", "decoder_position_ids"])
def test_a_decoder_alone_refuses_what_it_would_not_read(name: str) -> None:
    refused(lambda: DECODER(IDS, **{name: ONES}), name, "decoder_only")


@pytest.mark.parametrize("name", ["encoder_outputs", "decoder_input_ids", "decoder_inputs_embeds", "cache"])
def test_an_encoder_alone_refuses_what_it_would_not_read(name: str) -> None:
    refused(lambda: ENCODER(IDS, **{name: pairform.Cache() if name == "cache" else ONES}), name, "encoder_only")


HEADS: dict[str, tuple[dict[str, Any], Any, tuple[str, ...]]] = {
    "a class beyond": ({"name": "token_classification", "labels": 3}, replaced(ONES, 3), ("labels", "3", "from 0 to 2")),
    "float classes": ({"name": "token_classification", "labels": 3}, ONES.float(), ("labels", "float32")),
    "classes of other rows": ({"name": "token_classification", "labels": 3}, ONES[:1], ("labels", "(1, 6)", "(2, 6)")),
    "a row's class beyond": ({"name": "sequence_classification", "labels": 3}, torch.tensor([1, 3]), ("labels", "from 0 to 2")),
    "too many rows' classes": ({"name": "sequence_classification", "labels": 3}, torch.tensor([1, 1, 1]), ("labels", "(3,)")),
    "too few of several": ({"name": "sequence_classification", "labels": 3}, torch.ones(2, 2), ("labels", "(2, 2)", "(2, 3)")),
    "a number for one row": ({"name": "sequence_classification", "labels": 1}, torch.ones(1), ("labels", "(1,)", "(2,)")),
    "a span of negative places": ({"name": "span"}, torch.tensor([[0, 1], [-3, 2]]), ("labels", "-3")),
    "a float span": ({"name": "span"}, torch.ones(2, 2), ("labels", "float32")),
    "a partner beyond": ({"name": "contrastive"}, torch.tensor([1, 2]), ("labels", "2", "from 0 to 1")),
}


@pytest.mark.parametrize("name", HEADS)
def test_labels_that_a_head_cannot_read_are_refused(name: str) -> None:
    head, labels, words = HEADS[name]
    model = pairform.build({**document("encoder_only"), "head": head}, seed=0)
    refused(lambda: model(IDS % 23, labels=labels), *words)


def test_what_says_the_same_in_another_form_is_taken() -> None:
    expected = PAIR(IDS, ONES, TARGET)
    hidden = expected.encoder_last_hidden_state
    others: list[dict[str, Any]] = [
        {"input_ids": IDS.int(), "attention_mask": ONES.bool()},
        {"input_ids": IDS, "attention_mask": ONES.to(torch.uint16)},
        {"encoder_outputs": expected},
        {"encoder_outputs": (hidden,)},
        {"encoder_outputs": SimpleNamespace(last_hidden_state=hidden), "input_ids": IDS},
        {"input_ids": IDS, "position_ids": torch.arange(6)[None]},
    ]
    for given in others:
        torch.testing.assert_close(PAIR(**given, decoder_input_ids=TARGET.int()).logits, expected.logits)


def test_negative_places_are_taken_at_padding() -> None:
    mask = ONES.clone()
    mask[1, :2] = 0
    places = mask.cumsum(1) - 1
    expected = PAIR(IDS, mask, TARGET).logits
    torch.testing.assert_close(PAIR(IDS, mask, TARGET, position_ids=places).logits, expected)


def test_an_output_that_is_given_back_remembers_its_padding() -> None:
    mask = ONES.clone()
    mask[1, 3:] = 0
    made = PAIR(IDS, mask, TARGET)
    torch.testing.assert_close(PAIR(encoder_outputs=made, decoder_input_ids=TARGET).logits, made.logits)
    again = PAIR.generate(encoder_outputs=made, max_new_tokens=5, eos_token_id=())
    assert torch.equal(again, PAIR.generate(IDS, mask, max_new_tokens=5, eos_token_id=()))


def test_a_source_that_is_computed_again_is_the_same_one() -> None:
    """Also where its rows were chosen, and in half precision."""
    for model in (PAIR, pairform.build(small_pair(), seed=0, dtype=torch.bfloat16).eval()):
        cache = pairform.Cache()
        model(IDS, **WORDS, cache=cache)
        rows = torch.tensor([1])
        model(IDS[rows], decoder_input_ids=TARGET[rows, :1], cache=cache.rows(rows))


def test_tensors_without_values_are_not_asked_for_them() -> None:
    model = pairform.build(small_pair(), device="meta")
    model.check_inputs = True
    assert model(replaced(IDS, 97).to("meta"), decoder_input_ids=TARGET.to("meta")).logits.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_is_waited_for_only_where_inputs_are_to_be_checked() -> None:
    model = pairform.build(small_pair(), seed=0, device="cuda").eval()
    source, target, mask = IDS.cuda(), TARGET.cuda(), (ONES * 7).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(source, mask, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    model.check_inputs = True
    refused(lambda: model(source, mask, target), "attention_mask", "to 7")


def test_compiled_code_holds_no_check() -> None:
    """One graph, and no graph break; a mask of floats is refused by its dtype all the same."""
    graphs = CompileCounterWithBackend("eager")
    compiled: Any = torch.compile(PAIR, fullgraph=True, backend=graphs)
    torch._dynamo.reset()
    for mask in (ONES, ONES * 7):
        torch.testing.assert_close(compiled(IDS, mask, TARGET).logits, PAIR(IDS, ONES, TARGET).logits)
    assert graphs.frame_count == 1
    with pytest.raises(Exception, match="integers or booleans"):
        compiled(IDS, ONES.float(), TARGET)


def test_a_call_for_each_example_by_vmap_runs() -> None:
    logits = torch.func.vmap(lambda ids, target: PAIR(ids[None], decoder_input_ids=target[None]).logits[0])(IDS, TARGET)
    torch.testing.assert_close(logits, PAIR(IDS, decoder_input_ids=TARGET).logits)
