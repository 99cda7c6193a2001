"""What the pages of docs/cookbook say about other libraries, beyond what the pages themselves run."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.pages import blocks

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
COOKBOOK = ROOT / "docs" / "cookbook"
SAME_SHAPES = ("RMSNorm", "squared ReLU", "normalised queries and keys", "softcap", "sliding window", "RoPE", "ALiBi")
"""Options that add no weight, so that weights load without the patch, too."""


@pytest.mark.parametrize("name", ["transformers", "x-transformers"])
def test_a_page_names_the_version_that_it_is_run_with(name: str) -> None:
    pinned = re.search(rf"^{name}==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"{name} {pinned[1]} " in (COOKBOOK / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page of x-transformers defines before it compares."""
    pytest.importorskip("x_transformers")
    folder = tmp_path_factory.mktemp("x-transformers")
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(COOKBOOK / "x-transformers.md"):
        if block.file:
            (folder / block.file).write_text(block.text)
        if "import XTransformer" in block.text:
            break
        if block.language == "python":
            exec(block.text.partition("\nfor name, (wrapper")[0], names)
    return names | {"plain": pairform.load_spec(folder / "plain.json")}


@pytest.mark.parametrize("option", SAME_SHAPES)
def test_an_option_of_x_transformers_changes_the_logits(option: str, page: dict[str, Any]) -> None:
    """Without the patch they differ by much more than with it, so the page's comparison would notice a wrong patch."""
    wrapper, layers, patch = page["options"][option]
    theirs = page["their_model"](wrapper, layers)
    page["spread"](theirs)
    weights = page["carried"](theirs, "decoder", "self_attention", "feed_forward")
    apart = []
    for spec in (page["plain"], pairform.patch(page["plain"], patch)):
        model = pairform.build(spec)
        model.load_state_dict(weights)
        apart.append(page["difference"](theirs(page["ids"]), model(page["ids"]).logits))
    assert apart[0] > 1e-3 > 1e-5 > apart[1], apart


def test_the_settings_of_an_encoder_decoder_model_give_its_architecture(tmp_path: Path) -> None:
    """The projection and the identity norms that the page names: all its parameters but the pooler, which nothing reads."""
    from transformers import BertConfig, BertModel, EncoderDecoderModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    BertModel(BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    sizes = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 2, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    theirs = EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "bert", tmp_path / "gpt2")
    expected = sum(p.numel() for name, p in theirs.named_parameters() if "pooler" not in name)

    report = pairform.convert(
        encoder=tmp_path / "bert",
        decoder=tmp_path / "gpt2",
        out=tmp_path / "pair",
        cross_attention_norms="identity",
        patch={"bridge": {"name": "linear", "bias": True}},
    )
    ours = pairform.load(tmp_path / "pair")
    assert sum(p.numel() for p in ours.parameters()) == expected
    assert report.plan.totals["copied"]["parameters"] == expected - sum(
        p.numel() for name, p in theirs.named_parameters() if re.search("crossattention|ln_cross_attn|enc_to_dec_proj", name)
    )
