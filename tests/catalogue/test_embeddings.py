"""Embeddings against torch's modules."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import pairform

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 8, 0]])
BRANCHES = {"self_attention": {"name": "self_attention", "heads": 2, "mask": {"causal": True}}}


def build(embedding: dict[str, Any], **fields: Any) -> pairform.Model:
    layer = {"norm": {"name": "rmsnorm"}, "order": ["self_attention"], "branches": BRANCHES}
    stack = {"width": 8, "depth": 1, "embedding": embedding, "layer": layer}
    document = {"assembly": "decoder_only", "vocabulary": 11, "tokens": {"pad": 0}, "decoder": stack, "head": {"name": "lm"}}
    return pairform.build({**document, "initializer_range": 0.5, **fields}, seed=0, dtype=torch.float64)


def embedded(embedding: Any) -> Any:
    return embedding.finished(embedding(IDS), IDS)


FACTORISED = {"name": "factorised", "rank": 3}


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 1.0), (2.5, 2.5), ("sqrt_width", 8**0.5)])
@pytest.mark.parametrize("name", ["token", "factorised"])
def test_an_embedding_is_torchs(name: str, scale: Any, factor: float) -> None:
    model = build({**FACTORISED, "scale": scale} if name == "factorised" else {"name": name, "scale": scale})
    ours: Any = model.get_submodule("decoder.embedding")
    width = 3 if name == "factorised" else 8
    table = nn.Embedding(11, width, padding_idx=0, dtype=torch.float64)
    table.load_state_dict({"weight": ours.weight})
    project = nn.Linear(3, 8, bias=False, dtype=torch.float64) if name == "factorised" else nn.Identity()
    if name == "factorised":
        project.load_state_dict({"weight": ours.projection})
    expected = project(table(IDS)) * factor
    torch.testing.assert_close(embedded(ours), expected)
    expected.square().sum().backward()
    embedded(ours).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, table.weight.grad)
    given = torch.randn(1, 2, 8, dtype=torch.float64)
    assert ours.given(given) is given


@pytest.mark.parametrize("embedding", [{"name": "token", "scale": 3.0}, FACTORISED])
def test_embeddings_may_have_a_norm_as_in_peri_ln(embedding: dict[str, Any]) -> None:
    plain, ours = (build(embedding | norm).get_submodule("decoder.embedding") for norm in ({}, {"norm": {"name": "layernorm"}}))
    norm = nn.LayerNorm(8, dtype=torch.float64)
    torch.testing.assert_close(embedded(ours), norm(embedded(plain)))
    given: Any = ours.given
    embeds = torch.randn(1, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(given(embeds), norm(embeds))
    counted = pairform.inspect(build(embedding | {"norm": {"name": "layernorm"}}).spec).parameters
    assert counted["embedding"] == sum(parameter.numel() for parameter in ours.parameters())


def test_embeddings_that_are_given_are_scaled_on_request() -> None:
    ours: Any = build({**FACTORISED, "scale": 2.5, "scale_given": True}).get_submodule("decoder.embedding")
    given = torch.randn(1, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(ours.given(given), given * 2.5)


def test_a_tied_head_goes_back_through_both_factors() -> None:
    model = build(FACTORISED, head={"name": "lm", "tie": "decoder", "softcap": 5.0})
    assert [name for name, _ in model.named_parameters() if "head" in name] == []
    output = model(IDS, labels=IDS)
    embedding: Any = model.get_submodule("decoder.embedding")
    assert output.last_hidden_state is not None
    table = embedding.weight @ embedding.projection.T
    logits = 5 * torch.tanh(output.last_hidden_state @ table.T / 5)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.loss, functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()))
    assert output.loss is not None
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    cached = model.generate(IDS[:1], max_new_tokens=4, eos_token_id=())
    assert torch.equal(cached, model.generate(IDS[:1], max_new_tokens=4, eos_token_id=(), use_cache=False))


def test_both_stacks_and_the_head_share_the_factors() -> None:
    small = {"width": 64, "depth": 1, "embedding": {"name": "factorised", "rank": 8}}
    fields = {"vocabulary": 16, "encoder": small, "decoder": small, "tie_embeddings": True, "head": {"tie": "encoder"}}
    model = pairform.build(pairform.load_spec("t5gemma-s-s", fields), seed=0)
    names = [name for name, _ in model.named_parameters() if "embedding" in name or "head" in name]
    assert names == ["encoder.embedding.weight", "encoder.embedding.projection"]
    output = model(IDS, labels=IDS)
    assert output.logits is not None
    assert output.logits.shape == (2, 5, 16)


def test_the_vocabulary_grows_and_the_factors_are_counted() -> None:
    model = build(FACTORISED, head={"name": "lm", "tie": "decoder"})
    found = pairform.inspect(model.spec, target_length=4)
    assert found.parameters["embedding"] == 11 * 3 + 8 * 3
    untied = pairform.inspect(pairform.patch(model.spec, {"head": {"tie": None}}), target_length=4)
    assert untied.flops["total"] - found.flops["total"] == 2 * 4 * (8 * 11 - (8 * 3 + 3 * 11))
    before = model(IDS).logits
    grown = pairform.resize_vocabulary(model, 14)(IDS).logits
    assert before is not None
    assert grown is not None
    torch.testing.assert_close(grown[..., :11], before)
