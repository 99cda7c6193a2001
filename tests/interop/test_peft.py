"""Adapters of PEFT on models of the bridge: trained, saved, loaded, merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
import pairform.interop.transformers as bridge
from tests.catalogue.places import model as decoder_only
from tests.small_pairs import small_pair

peft = pytest.importorskip("peft", reason="adapters need peft")
IDS, TARGET = torch.randint(3, 29, (2, 9)), torch.randint(3, 29, (2, 5))
TIED: dict[str, Any] = {"head": {"tie": "decoder"}}
SHARED: dict[str, Any] = {"head": {"tie": "encoder"}, "tie_embeddings": True}
SCALED: dict[str, Any] = {**TIED, "decoder": {"embedding": {"scale": "sqrt_width", "norm": {"name": "rmsnorm"}}}}
ADAPTERS: dict[str, dict[str, Any]] = {
    "projections": {"target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "DoRA": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    "embeddings": {"target_modules": ["q_proj", "embedding"]},
    "trained embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embedding"]},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 7]},
}


def adapted(folder: Path, **options: Any) -> Any:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False, **options)
    if "modules_to_save" in options or "trainable_token_indices" in options:
        config.init_lora_weights = True
    return peft.get_peft_model(model, config)


def train(model: Any, steps: int = 2) -> None:
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.05)
    model.train()
    for _ in range(steps):
        model(input_ids=IDS, labels=TARGET).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, decoder_input_ids=TARGET).logits


@pytest.mark.parametrize("changes", [{}, TIED, SHARED, SCALED], ids=["own head", "tied", "shared", "scaled and normed"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_trained_saved_loaded_and_merged(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(**changes), seed=0, dtype=torch.float64), tmp_path / "pair")
    model = adapted(tmp_path / "pair", **ADAPTERS[name])
    train(model)
    if changes is SHARED and "modules_to_save" in ADAPTERS[name]:  # PEFT trains a copy for each stack
        with pytest.raises(pairform.PairformError, match=r"decoder\.embedding"):
            pairform.save(model.merge_and_unload(), tmp_path / "merged")
        return
    expected = logits(model)
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "pair")
    assert not torch.allclose(expected, logits(plain))
    model.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()), expected)
    merged = model.merge_and_unload()
    assert isinstance(merged, bridge.PairformForConditionalGeneration)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-9, atol=1e-9)
    pairform.save(merged, tmp_path / "merged")
    torch.testing.assert_close(logits(pairform.load(tmp_path / "merged")), expected, rtol=1e-9, atol=1e-9)


def test_an_adapted_model_generates_as_the_merged_one(tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(**TIED), seed=0), tmp_path / "pair")
    model = adapted(tmp_path / "pair", target_modules=["q_proj", "embedding"])
    options: dict[str, Any] = {"input_ids": IDS, "max_new_tokens": 6, "do_sample": False}
    written = model.generate(**options)
    assert torch.equal(model.merge_and_unload().generate(**options), written)


@pytest.mark.parametrize("head", [{}, {"tie": "decoder"}, {"transform": {"bias": True}}], ids=["own head", "tied", "dense"])
def test_adapters_on_all_linear_layers_of_a_decoder_only_model(head: dict[str, Any], tmp_path: Path) -> None:
    document = decoder_only("decoder_only") | {"head": {"name": "lm", **head}}
    pairform.save(pairform.build(pairform.load_spec(document), seed=0, dtype=torch.float64), tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    ids = IDS % 22
    expected = adapted(input_ids=ids).logits
    merged = adapted.merge_and_unload()
    assert merged.config.tie_word_embeddings == ("tie" in head)
    pairform.save(merged, tmp_path / "merged")
    torch.testing.assert_close(pairform.load(tmp_path / "merged")(ids).logits, expected, rtol=1e-9, atol=1e-9)


def test_virtual_tokens_are_trained(tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(), seed=0), tmp_path / "pair")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "pair")
    model = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4))
    before = logits(model)
    train(model)
    assert not torch.allclose(logits(model), before)


def test_an_adapter_that_is_not_merged_is_not_saved_as_a_model(tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(), seed=0), tmp_path / "pair")
    model = adapted(tmp_path / "pair", target_modules=["q_proj"])
    for wrapper in (model, model.get_base_model()):
        with pytest.raises(pairform.PairformError, match="merge_and_unload"):
            pairform.save(wrapper, tmp_path / "out")
    assert not (tmp_path / "out").exists()
