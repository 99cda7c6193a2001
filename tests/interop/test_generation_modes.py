"""Modes of transformers' `generate` that use the cache in other ways than token by token."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
import pairform.interop.transformers  # registers the classes
from tests.catalogue.places import model

CAUSAL: dict[str, Any] = {"mask": {"causal": True}}
ATTENTION: dict[str, dict[str, Any]] = {
    "all tokens": {"name": "self_attention", "heads": 4, "kv_heads": 2, **CAUSAL},
    "latent": {"name": "latent_attention", "heads": 4, "latent": 8, "rope_dim": 4, **CAUSAL},
    "window": {"name": "self_attention", "heads": 4, "mask": {"causal": True, "window": [4, 4]}},
    "state": {"name": "retention", "heads": 4, **CAUSAL},
    "prefix": {"name": "self_attention", "heads": 4, "mask": {"causal": True, "prefix": True}},
    "turning": {
        "name": "self_attention",
        "heads": 4,
        "position": {
            "name": "rope",
            "scaling": {
                "name": "longrope",
                "short": [1.0, 1.5, 2.0, 2.5],
                "long": [3.0, 2.0, 4.0, 5.0],
                "original_length": 12,
            },
        },
        **CAUSAL,
    },
}
IDS = torch.randint(3, 22, (2, 5), generator=torch.Generator().manual_seed(0)).repeat(1, 2)


def decoder(folder: Path, name: str, seed: int = 0) -> Any:
    """A decoder-only model with this attention, in its Auto class."""
    document = model("decoder_only") | {"initializer_range": 1.0}
    document["decoder"]["layer"]["branches"] |= {"self_attention": ATTENTION[name]}
    pairform.save(pairform.build(pairform.load_spec(document), seed=seed, dtype=torch.float64), folder / f"{name} {seed}")
    return transformers.AutoModelForCausalLM.from_pretrained(folder / f"{name} {seed}")


def modes(folder: Path) -> list[dict[str, Any]]:
    return [{"prompt_lookup_num_tokens": 3}, {"assistant_model": decoder(folder, "all tokens", seed=1)}]


@pytest.mark.parametrize("name", ["all tokens", "latent"])
def test_assisted_decoding_writes_the_tokens_of_greedy_decoding(name: str, tmp_path: Path) -> None:
    causal = decoder(tmp_path, name)
    expected = causal.generate(IDS[:1], max_new_tokens=12, do_sample=False)
    for mode in modes(tmp_path):
        assert torch.equal(causal.generate(IDS[:1], max_new_tokens=12, do_sample=False, **mode), expected)


def test_assisted_decoding_of_a_pair(tmp_path: Path) -> None:
    document = model("encoder_decoder") | {"initializer_range": 1.0}
    pairs = []
    for seed in (0, 1):
        pairform.save(pairform.build(pairform.load_spec(document), seed=seed, dtype=torch.float64), tmp_path / str(seed))
        pairs.append(transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / str(seed)))
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    expected = pairs[0].generate(IDS[:1], **options)
    for mode in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": pairs[1]}):
        assert torch.equal(pairs[0].generate(IDS[:1], **options, **mode), expected)


@pytest.mark.parametrize("name", ["window", "state", "prefix"])
def test_what_cannot_be_taken_back_is_refused(name: str, tmp_path: Path) -> None:
    causal = decoder(tmp_path, name)
    for mode in modes(tmp_path):
        with pytest.raises(pairform.PairformError, match=r"removed one|prefix"):
            causal.generate(IDS[:1], max_new_tokens=12, do_sample=False, **mode)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"prefill_chunk_size": 3}, {"num_beams": 3}], ids=str)
def test_tokens_are_those_of_pairform(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    causal = decoder(tmp_path, name)
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    given: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    if name == "prefix" and options.keys() & {"use_cache", "prefill_chunk_size"}:
        with pytest.raises(pairform.PairformError, match="prefix"):
            causal.generate(IDS, **given, **options)
        return
    ours = pairform.load(tmp_path / f"{name} 0")
    expected = ours.generate(IDS, **given | {"eos_token_id": []}, num_beams=options.get("num_beams", 1))
    assert torch.equal(causal.generate(IDS, **given, **options), expected)
