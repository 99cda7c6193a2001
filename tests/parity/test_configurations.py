"""Fields of configurations mean what transformers makes of them, whatever their names suggest; where we differ it is said."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
)
from transformers.activations import ACT2FN

import pairform
from pairform.assemblies.families.config import ACTIVATIONS as ALIASES
from pairform.blocks.feedforward import ACTIVATIONS
from tests.broken.damage import edit_json, refused
from tests.checkpoints import gemma2, gemma3, gemma3_text, t5gemma, t5gemma2, write_wide
from tests.parity import test_llama_like, test_t5

IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def logits(model: pairform.Model | PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def agree(folder: Path, oracle: type[PreTrainedModel], ids: torch.Tensor = IDS) -> None:
    theirs = logits(oracle.from_pretrained(folder), ids)
    torch.testing.assert_close(logits(pairform.load(folder), ids), theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", ALIASES)
def test_every_name_of_an_activation_means_the_same_function(name: str) -> None:
    values = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[ALIASES[name]](values), ACT2FN[name](values), rtol=1e-9, atol=1e-9)


def test_no_activation_of_transformers_that_we_have_lacks_a_name() -> None:
    values = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for name in sorted(set(ACT2FN) - set(ALIASES) - {"prelu", "xielu"}):
        same = [ours for ours, function in ACTIVATIONS.items() if torch.allclose(function(values), ACT2FN[name](values))]
        assert same == [], name


@pytest.mark.parametrize("name", ["swish", "gelu_new", "gelu_fast", "relu2", "sigmoid"])
def test_a_llama_with_any_such_name_computes_as_there(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, hidden_act=name, initializer_range=0.3)
    folder = write_wide(tmp_path / "model", LlamaForCausalLM(config))
    agree(folder, LlamaForCausalLM)
    pairform.export(folder, tmp_path / "out")
    agree(tmp_path / "out", LlamaForCausalLM)


def test_the_old_spelling_of_llamas_class_is_known(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = write_wide(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**SIZES)))
    edit_json(folder / "config.json", lambda config: config.update(architectures=["LLaMAForCausalLM"]))
    agree(folder, LlamaForCausalLM)


ORACLES: dict[Callable[..., Path], Any] = {gemma2: Gemma2ForCausalLM, gemma3_text: Gemma3ForCausalLM}


@pytest.mark.parametrize("make", ORACLES)
def test_gemma_passes_over_hidden_act_and_says_so(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(tmp_path / "model", initializer_range=0.3)

    def only_the_field_of_gemma_1(config: dict[str, Any]) -> None:
        config.pop("hidden_activation")
        config["hidden_act"] = "relu"

    edit_json(folder / "config.json", only_the_field_of_gemma_1)
    with pytest.warns(UserWarning, match="hidden_act is 'relu' and is not read"):
        agree(folder, ORACLES[make])
    edit_json(folder / "config.json", lambda config: config.update(hidden_act="gelu_pytorch_tanh"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairform.load_spec(folder)


def test_gemma_2_with_one_of_two_fields_is_refused(tmp_path: Path) -> None:
    folder = gemma2(tmp_path / "model", initializer_range=0.3)
    causal = logits(pairform.load(folder))
    edit_json(folder / "config.json", lambda config: config.update(use_bidirectional_attention=True))
    refused(lambda: pairform.load(folder), "use_bidirectional_attention", "is_causal: false beside it")
    edit_json(folder / "config.json", lambda config: config.update(is_causal=False))
    assert not torch.allclose(logits(pairform.load(folder)), causal, atol=0.1)


REFUSED: list[tuple[Callable[[Path], Path], str, Any]] = [
    (gemma2, "is_causal", None),
    (gemma2, "sliding_window", None),
    (gemma3_text, "is_causal", None),
    (gemma3, "text_config.is_causal", False),
    (t5gemma, "decoder.is_causal", False),
    (t5gemma2, "decoder.is_causal", False),
    (t5gemma, "encoder.is_causal", True),
    (t5gemma2, "encoder.text_config.is_causal", True),
    (t5gemma2, "encoder.model_type", "nothing"),
    (test_t5.create, "is_causal", False),
    (test_t5.create, "is_causal", True),
    (test_t5.create, "is_encoder_decoder", False),
]


@pytest.mark.parametrize(("make", "path", "value"), REFUSED)
def test_what_transformers_follows_and_no_spec_says_is_refused(
    make: Callable[[Path], Path], path: str, value: Any, tmp_path: Path
) -> None:
    folder, (*parts, field) = make(tmp_path / "model"), path.split(".")

    def edit(config: dict[str, Any]) -> None:
        for part in parts:
            config = config[part]
        config[field] = value

    edit_json(folder / "config.json", edit)
    refused(lambda: pairform.load_spec(folder), path)


WINDOWED: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "gemma2": (partial(gemma2, initializer_range=0.3), Gemma2ForCausalLM),
    "gemma3_text": (partial(gemma3_text, initializer_range=0.3), Gemma3ForCausalLM),
    "mistral": (partial(test_llama_like.create, family="mistral", sliding_window=4), MistralForCausalLM),
    "qwen2": (partial(test_llama_like.create, family="qwen2", **test_llama_like.WINDOWED["qwen2"]), Qwen2ForCausalLM),
    "qwen3": (partial(test_llama_like.create, family="qwen3", **test_llama_like.WINDOWED["qwen3"]), Qwen3ForCausalLM),
}


@pytest.mark.parametrize("family", WINDOWED)
def test_decoders_that_are_not_causal_have_the_windows_of_transformers(family: str, tmp_path: Path) -> None:
    make, oracle = WINDOWED[family]
    folder = make(tmp_path / "model")
    causal = logits(pairform.load(folder))
    edit_json(folder / "config.json", lambda config: config.update(is_causal=False))
    agree(folder, oracle)
    assert not torch.allclose(logits(pairform.load(folder)), causal, atol=0.1)
    pairform.export(folder, tmp_path / "out")
    assert logits(pairform.load(tmp_path / "out")).equal(logits(pairform.load(folder)))
    agree(tmp_path / "out", oracle)


@pytest.mark.parametrize("window", [4, 5])
def test_gemma_3_with_both_fields_of_a_bidirectional_model(window: int, tmp_path: Path) -> None:
    folder = gemma3_text(tmp_path / "model", initializer_range=0.3, sliding_window=window)
    edit_json(folder / "config.json", lambda config: config.update(is_causal=False, use_bidirectional_attention=True))
    agree(folder, Gemma3ForCausalLM)


def test_second_names_of_fields_are_read_as_there(tmp_path: Path) -> None:
    folder = test_t5.create(tmp_path / "t5")
    spec = pairform.load_spec(folder)

    def rename(config: dict[str, Any]) -> None:
        config |= {"num_layers": 1, "num_hidden_layers": config["num_layers"]}
        config |= {"hidden_size": config.pop("d_model"), "num_attention_heads": config.pop("num_heads")}
        config["head_dim"] = config.pop("d_kv")

    edit_json(folder / "config.json", rename)
    assert pairform.load_spec(folder) == spec
    agree_on_pairs(folder)

    pictures = gemma3(tmp_path / "gemma3")
    edit_json(pictures / "config.json", lambda config: config.update(image_token_id=config["image_token_index"] + 1))
    vision = pairform.load_spec(pictures).last.vision
    assert vision is not None
    assert vision.image_token == Gemma3Config.from_pretrained(pictures).image_token_index


def agree_on_pairs(folder: Path) -> None:
    with torch.no_grad():
        theirs = T5ForConditionalGeneration.from_pretrained(folder)(IDS, decoder_input_ids=IDS).logits
        ours = pairform.load(folder)(IDS, decoder_input_ids=IDS).logits
    assert ours is not None
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (gemma3_text, "attn_logit_softcapping"),
        (gemma3, "text_config.attn_logit_softcapping"),
        (gemma3, "text_config.final_logit_softcapping"),
        (t5gemma2, "decoder.attn_logit_softcapping"),
        (t5gemma2, "encoder.text_config.attn_logit_softcapping"),
    ],
)
def test_a_softcap_that_is_not_applied_is_told(make: Callable[[Path], Path], path: str, tmp_path: Path) -> None:
    folder, (*parts, field) = make(tmp_path / "model"), path.split(".")
    spec = pairform.load_spec(folder)

    def edit(config: dict[str, Any]) -> None:
        for part in parts:
            config = config[part]
        config[field] = 2.0

    edit_json(folder / "config.json", edit)
    with pytest.warns(UserWarning, match=f"{field} is 2.0 and is not read"):
        assert pairform.load_spec(folder) == spec
