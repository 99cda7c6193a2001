"""Encoders that are encoders already, such as BERT, beside a decoder of another family."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.checkpoints import gemma2
from tests.initialisation.sources import rows, tensors

VOCABULARY = 90


def bert(folder: Path, **stack: Any) -> Path:
    """A post-norm encoder with learned positions and a head."""
    attention = {"name": "self_attention", "heads": 4, "bias": True}
    document = {
        "assembly": "encoder_only",
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 3, "bos": 4, "eos": 5},
        "encoder": {
            "width": 48,
            "depth": 2,
            "embedding": {"name": "token"},
            "position": {"name": "learned", "length": 40},
            "layer": {
                "norm": {"name": "layernorm", "eps": 1e-12},
                "placement": "post",
                "order": ["self_attention", "feed_forward"],
                "branches": {"self_attention": attention, "feed_forward": {"name": "mlp", "hidden": 64, "bias": True}},
            },
            **stack,
        },
        "head": {"name": "lm"},
        "initializer_range": 1.0,
    }
    pairform.save(pairform.build(document, seed=3), folder)
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    return {"encoder": bert(tmp_path / "bert"), "decoder": gemma2(tmp_path / "gemma")}


def test_an_encoder_keeps_its_norms_positions_and_tokens(sources: dict[str, Any], tmp_path: Path) -> None:
    pairform.convert(**sources, out=tmp_path / "pair")
    pair, bert = pairform.load_spec(tmp_path / "pair"), pairform.load_spec(sources["encoder"])
    assert pair.encoder is not None
    assert bert.encoder is not None
    for field in ("layers", "norm", "position"):
        assert getattr(pair.encoder, field) == getattr(bert.encoder, field)
    assert (pair.tokens_of("encoder").pad, pair.tokens.pad) == (3, 0)
    assert (pair.vocabulary_of("encoder"), pair.vocabulary) == (VOCABULARY, 96)
    kept = {name for name in tensors(sources["encoder"]) if name.startswith("encoder.")}
    made = tensors(tmp_path / "pair")
    assert all(made[name].equal(tensors(sources["encoder"])[name]) for name in kept)


def test_an_encoder_keeps_a_causal_mask_of_its_own(sources: dict[str, Any], tmp_path: Path) -> None:
    """As in an ablation; the stack of a decoder-only source is made bidirectional."""
    causal = bert(tmp_path / "causal")
    spec = pairform.patch(
        pairform.load_spec(causal), {"encoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}}}
    )
    pairform.save(pairform.build(spec, seed=3), tmp_path / "masked")
    pair = pairform.plan(encoder=tmp_path / "masked", decoder=sources["decoder"]).spec
    assert pair.encoder is not None
    assert all(layer.self_attention.mask is not None and layer.self_attention.mask.causal for layer in pair.encoder.layers)


def test_the_plan_names_the_head_that_is_not_taken(sources: dict[str, Any]) -> None:
    dropped = {row.source.tensor: row.dropped for row in pairform.plan(**sources).origins if row.dropped}
    assert dropped == {"head.weight": "an encoder beside a decoder has no head"}


def test_the_plan_advises_a_silent_start_between_families(sources: dict[str, Any]) -> None:
    (note,) = pairform.plan(**sources).notes
    assert "zero_output" in note
    planned = pairform.plan(**sources, cross_attention="zero_output")
    assert not planned.notes
    assert pairform.Plan.read(pairform.plan(**sources).document()).notes == (note,)
    # of one family, with a norm that no branch passes unchanged, and with cross-attention that was asked to be random
    gemma = sources["decoder"]
    assert not pairform.plan(encoder=gemma, decoder=gemma).notes
    assert not pairform.plan(**sources, patch={"decoder": {"layer": {"placement": "post"}}}).notes
    assert not pairform.plan(**sources, cross_attention="random").notes


def test_auto_draws_the_cross_attention_of_a_post_norm_decoder(sources: dict[str, Any]) -> None:
    """Which cannot be silent."""
    planned = rows(pairform.plan(**sources, patch={"decoder": {"layer": {"placement": "post"}}}))
    assert planned["decoder.layers.0.cross_attention.block.o_proj.weight"].operation.initial.std == 1.0


@torch.no_grad()
def test_a_source_longer_than_the_positions_is_refused(sources: dict[str, Any], tmp_path: Path) -> None:
    pairform.convert(**sources, out=tmp_path / "pair")
    pair = pairform.load(tmp_path / "pair")
    with pytest.raises(pairform.PairformError, match="40"):
        pair(torch.full((1, 41), 7), decoder_input_ids=torch.tensor([[2]]))
