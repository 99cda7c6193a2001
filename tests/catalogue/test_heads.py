"""Heads against transformers' losses and the formulas in float64."""

from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional

import pairform
from tests.test_blocks import TINY

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 8, 5], [3, 3, 8, 4, 6], [7, 9, 4, 4, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]])
ATTENTION = {"name": "self_attention", "heads": 2, "mask": {"causal": False}}


def build(head: dict[str, Any]) -> pairform.Model:
    layer = {"norm": {"name": "rmsnorm"}, "order": ["self_attention"], "branches": {"self_attention": ATTENTION}}
    stack = {"width": 8, "depth": 1, "embedding": {"name": "token"}, "layer": layer}
    document = {"assembly": "encoder_only", "vocabulary": 11, "encoder": stack, "head": head, "initializer_range": 0.5}
    return pairform.build(document, seed=0, dtype=torch.float64)


def trained(model: pairform.Model, labels: torch.Tensor) -> pairform.ModelOutput:
    """The output, after a check that the loss reaches every parameter."""
    output = model(IDS, MASK, labels=labels)
    assert output.loss is not None
    output.loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    return output


@pytest.mark.parametrize("bias", [True, False])
def test_a_span_is_transformers_question_answering(bias: bool) -> None:
    model = build({"name": "span", "bias": bias})
    labels = torch.tensor([[0, 3], [2, 2], [1, 9], [-100, 4]])
    output = trained(model, labels)
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    theirs: Any = transformers.BertForQuestionAnswering(config).double()
    head: Any = model.head
    hidden = output.last_hidden_state
    with torch.no_grad():
        theirs.qa_outputs.weight.copy_(head.proj.weight)
        theirs.qa_outputs.bias.copy_(head.proj.bias if bias else torch.zeros(2))
    theirs.bert.forward = lambda *args, **kwargs: transformers.modeling_outputs.BaseModelOutputWithPooling(hidden, None)
    starts, ends = labels.clone().unbind(-1)
    starts[starts < 0] = 99  # transformers leaves out what lies beyond the text alone
    expected = theirs(IDS, start_positions=starts, end_positions=ends)
    assert output.logits is not None
    torch.testing.assert_close(output.logits.unbind(-1), (expected.start_logits, expected.end_logits))
    torch.testing.assert_close(output.loss, expected.loss)


def test_a_span_has_two_ends() -> None:
    with pytest.raises(pairform.PairformError, match=r"labels: found the shape \(4,\), expected \(4, 2\)"):
        build({"name": "span"})(IDS, labels=torch.zeros(4, dtype=torch.long))


REAL = [(0, 5), (0, 3), (1, 4), (4, 5)]
"""Where each row's real tokens begin and end."""


@pytest.mark.parametrize("name", ["sentence_embedding", "contrastive"])
@pytest.mark.parametrize("projection", [None, 3])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_sentence_is_pooled_over_its_real_tokens(name: str, pooling: str, projection: int | None, normalise: bool) -> None:
    model = build({"name": name, "pooling": pooling, "projection": projection, "normalise": normalise})
    output = model(IDS, MASK)
    head: Any = model.head
    assert output.last_hidden_state is not None
    rows = []
    for row, (begin, end) in zip(output.last_hidden_state, REAL, strict=True):
        real = row[begin:end]
        vector = {"mean": real.mean(0), "first": real[0], "last": real[-1]}[pooling]
        vector = vector if projection is None else head.proj.weight @ vector
        rows.append(vector / vector.pow(2).sum().sqrt() if normalise else vector)
    torch.testing.assert_close(output.logits, torch.stack(rows))


def test_without_padding_every_token_is_pooled() -> None:
    model = build({"name": "sentence_embedding", "normalise": False})
    output = model(IDS)
    assert output.last_hidden_state is not None
    torch.testing.assert_close(output.logits, output.last_hidden_state.mean(1))


def test_a_sentence_embedding_has_no_loss() -> None:
    with pytest.raises(pairform.PairformError, match="Train with the head contrastive"):
        build({"name": "sentence_embedding"})(IDS, labels=torch.tensor([1, 0, 3, 2]))


@pytest.mark.parametrize("learned", [True, False])
def test_contrastive_pairs_have_the_loss_of_simclr(learned: bool) -> None:
    model = build({"name": "contrastive", "temperature": 0.5, "learned": learned, "projection": 6})
    labels = torch.tensor([2, 3, 0, -100])  # rows 0 and 2 are a pair, 3 is what 1 belongs to but has no partner itself
    output = trained(model, labels)
    vectors = output.logits
    assert vectors is not None
    losses = []
    for row, partner in ((0, 2), (1, 3), (2, 0)):
        likeness = [functional.cosine_similarity(vectors[row], other, dim=0) / 0.5 for other in vectors]
        others = sum(value.exp() for number, value in enumerate(likeness) if number != row)
        losses.append(-(likeness[partner].exp() / others).log())
    torch.testing.assert_close(output.loss, sum(losses) / 3)
    assert ("head.log_temperature" in dict(model.named_parameters())) == learned


def test_contrastive_training_brings_partners_together() -> None:
    model = build({"name": "contrastive"}).train()
    labels = torch.tensor([1, 0, 3, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        loss = model(IDS, MASK, labels=labels).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vectors = model(IDS, MASK).logits
    assert vectors is not None
    likeness = (vectors @ vectors.T).masked_fill(torch.eye(4, dtype=torch.bool), -2)
    assert torch.equal(likeness.argmax(-1), labels)


def test_a_contrastive_label_is_a_row() -> None:
    with pytest.raises(pairform.PairformError, match=r"labels: found the shape \(4, 5\), expected \(4,\)"):
        build({"name": "contrastive"})(IDS, labels=IDS)


@pytest.mark.parametrize("start", [0, 2])
def test_a_classifiers_start_token_is_read_even_if_it_is_the_pad_token(start: int) -> None:
    """As in T5: the decoder of a classifier reads the source shifted right behind its start token."""
    head = {"name": "sequence_classification", "labels": 3}
    spec = pairform.load_spec(TINY, {"tokens": {"start": start}, "head": head, "initializer_range": 0.5})
    model = pairform.build(spec, seed=0, dtype=torch.float64)
    read = torch.tensor([[0, 0, 3, 4, 5]])
    shifted = torch.tensor([[start, 0, 0, 3, 4]])
    given = model(read, decoder_input_ids=shifted, decoder_attention_mask=torch.tensor([[1, 0, 0, 1, 1]])).logits
    torch.testing.assert_close(model(read).logits, given)


@pytest.mark.parametrize("name", ["sentence_embedding", "contrastive", "span"])
def test_heads_are_saved_and_loaded(name: str, tmp_path: Any) -> None:
    model = build({"name": name})
    pairform.save(model, tmp_path / "model")
    assert torch.equal(pairform.load(tmp_path / "model")(IDS, MASK).logits, model(IDS, MASK).logits)


@torch.no_grad()
@pytest.mark.parametrize("start", [2, 0])
def test_a_start_token_is_read_even_if_it_is_that_of_padding(start: int) -> None:
    """As T5's. A classifier's decoder reads the source shifted right; what it makes itself is what it is given with a mask."""
    own = {"name": "self_attention", "heads": 2, "mask": {"causal": True}}
    branches = {"self_attention": own, "cross_attention": {"name": "cross_attention", "heads": 2}}
    layer = {"norm": {"name": "rmsnorm"}, "order": list(branches), "branches": branches}
    decoder = {"width": 8, "depth": 1, "embedding": {"name": "token"}, "layer": layer}
    head = {"name": "sequence_classification", "labels": 3}
    document = build(head).spec.document() | {"assembly": "encoder_decoder", "decoder": decoder}
    model = pairform.build(document | {"tokens": {"pad": 0, "start": start}}, seed=0, dtype=torch.float64)
    shifted = model.shift_right(IDS)
    assert shifted[:, 0].eq(start).all()
    given = model(IDS, decoder_input_ids=shifted, decoder_attention_mask=torch.ones_like(shifted)).logits
    torch.testing.assert_close(model(IDS).logits, given)
    padded = functional.pad(IDS, (0, 2))
    torch.testing.assert_close(model(padded).logits, model(padded, padded != 0, torch.cat((shifted, IDS[:, -1:]), 1)).logits)


def bert(**options: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3, **options
    )


@pytest.mark.parametrize("tie", [None, "encoder"])
def test_a_masked_language_model_has_transformers_head_and_loss(tie: str | None) -> None:
    transform = {"activation": "gelu", "norm": {"name": "layernorm", "eps": 1e-12}}
    model = build({"name": "masked_lm", "tie": tie, "transform": transform})
    torch.nn.init.normal_(model.get_parameter("head.bias"))
    labels = IDS.masked_fill(MASK == 0, -100)
    output = trained(model, labels)
    theirs: Any = transformers.BertForMaskedLM(bert()).double()
    ours = {name.removeprefix("head."): value for name, value in model.state_dict().items() if name.startswith("head.")}
    table = ours.pop("weight", model.state_dict()["encoder.embedding.weight"])
    state = {name.replace("transform.norm", "transform.LayerNorm"): value for name, value in ours.items()}
    bias = state.pop("bias")
    theirs.cls.predictions.load_state_dict(state | {"bias": bias, "decoder.weight": table, "decoder.bias": bias})
    hidden = output.last_hidden_state
    theirs.bert.forward = lambda *args, **kwargs: transformers.modeling_outputs.BaseModelOutputWithPooling(hidden, None)
    expected = theirs(IDS, labels=labels)
    torch.testing.assert_close(model(IDS, MASK).logits, expected.logits)
    torch.testing.assert_close(output.loss, expected.loss)
    logits = model(IDS, MASK).logits
    assert logits is not None
    exact = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    wanted = torch.autograd.grad(exact, list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("name", ["sequence_classification", "sentence_embedding"])
def test_a_transform_of_the_first_token_is_berts_pooler(name: str) -> None:
    options = {"normalise": False} if name == "sentence_embedding" else {"labels": 3}
    model = build({"name": name, "pooling": "first", "transform": {"activation": "tanh"}, **options})
    output = model(IDS, MASK)
    theirs: Any = transformers.BertForSequenceClassification(bert()).double().eval()
    head: Any = model.head
    theirs.bert.pooler.dense.load_state_dict(head.transform.dense.state_dict())
    rows = [row[begin:end] for row, (begin, end) in zip(output.last_hidden_state, REAL, strict=True)]
    expected = torch.cat([theirs.bert.pooler(row[None]) for row in rows])
    if name == "sequence_classification":
        theirs.classifier.load_state_dict(head.proj.state_dict())
        expected = theirs.classifier(expected)
    torch.testing.assert_close(output.logits, expected)


def test_a_tied_masked_lm_needs_a_table_of_the_width() -> None:
    document = build({"name": "masked_lm", "transform": {}}).spec.document()
    document["encoder"]["embedding"] = {"name": "factorised", "rank": 4}
    document["head"]["tie"] = "encoder"
    with pytest.raises(pairform.PairformError, match=r"head\.tie: found the encoder's factorised table"):
        pairform.load_spec(document)
