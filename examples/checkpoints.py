"""Write small checkpoints in the transformers format. `make demo` converts them, and the pages in docs/ use them.

Gemma 2 with a tokenizer: `gemma-large` (6 layers of width 48) and `gemma-small` (4 layers of width 32). Gemma 3: `gemma3`
with the same tokenizer, the multimodal `gemma3-pictures` (both of width 32) and `gemma3-wide` (width 48). `modernbert`
(6 layers of width 48) with a tokenizer of its own. All weights are random.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao, which warns about kernels for other machines
    logging.getLogger(name).setLevel(logging.ERROR)

from transformers import (  # noqa: E402
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
BERT_SPECIAL = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"]
"""ModernBERT's special tokens, in the order of their ids."""
# fmt: off
WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "small", "large", "red", "blue", "green",
    "old", "young", "warm", "cold", "dark", "bright", "happy", "sad", "cat", "bird", "horse", "cow", "sheep",
    "mouse", "fish", "bear", "wolf", "owl", "tree", "river", "hill", "lake", "field", "garden", "road", "house",
    "door", "window", "roof", "table", "chair", "lamp", "book", "letter", "song", "story", "name", "word", "bread",
    "apple", "milk", "water", "fire", "stone", "sand", "snow", "rain", "wind", "sun", "moon", "star", "sky", "sees",
    "likes", "follows", "hears", "finds", "brings", "keeps", "opens", "sings", "runs", "walks", "sleeps", "waits",
    "and", "then", "but", "near", "under", "behind", "home", "today", "little", "slowly", "always", "mountain",
    "bridge",
]
# fmt: on
SIZES: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
    "initializer_range": 1.0,
}
"""Weights wide enough for softcaps and sliding windows to have an effect, and a window shorter than a sentence."""
LARGE = {"hidden_size": 48, "num_hidden_layers": 6, "intermediate_size": 96}
GEMMA3: dict[str, Any] = {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    },
}
MODERNBERT: dict[str, Any] = {
    "vocab_size": len(BERT_SPECIAL) + len(WORDS),
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "local_attention": 8,
    "initializer_range": 1.0,
    **{f"{name}_token_id": index for index, name in enumerate(("cls", "sep", "pad"))},
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "vision_use_head": False,
}
PICTURES = {"mm_tokens_per_image": 4, "boi_token_index": 4, "eoi_token_index": 5, "image_token_index": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="output folder (default: demo)")
    folder: Path = parser.parse_args().out
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    for name, seed, changes in (("gemma-large", 1, LARGE), ("gemma-small", 2, {})):
        write(Gemma2ForCausalLM, Gemma2Config(**SIZES | changes), folder / name, seed)
        make_tokenizer().save_pretrained(folder / name)
    text = SIZES | GEMMA3
    write(Gemma3ForCausalLM, Gemma3TextConfig(**text), folder / "gemma3", 3)
    make_tokenizer().save_pretrained(folder / "gemma3")
    write(Gemma3ForCausalLM, Gemma3TextConfig(**text | {"hidden_size": 48}), folder / "gemma3-wide", 4)
    seeing = Gemma3Config(text_config=text, vision_config=TOWER, **PICTURES)
    write(Gemma3ForConditionalGeneration, seeing, folder / "gemma3-pictures", 5)
    write(ModernBertForMaskedLM, ModernBertConfig(**MODERNBERT), folder / "modernbert", 6)
    make_bert_tokenizer().save_pretrained(folder / "modernbert")
    print(f"{folder}: six small checkpoints: gemma-large, gemma-small, gemma3, gemma3-wide, gemma3-pictures, modernbert")


def write(architecture: type[PreTrainedModel], config: Any, folder: Path, seed: int) -> None:
    """Write a folder with `save_pretrained`.

    Norms get random values, because transformers initialises them as the identity. Embeddings are scaled down, because a tied
    head would otherwise repeat the last input token.
    """
    torch.manual_seed(seed)
    model = architecture(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("norm", "vision_tower", "projector")):
                parameter.normal_(std=0.3)
            if "embed_tokens" in name:
                parameter.mul_(0.1)
    model.save_pretrained(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word that puts `<bos>` before each text."""
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(SPECIAL, "<unk>", "<bos> $A"), **names)


def make_bert_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word that puts `[CLS]` before and `[SEP]` after each text."""
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(BERT_SPECIAL, "[UNK]", "[CLS] $A [SEP]"), **names)


def word_tokenizer(special: list[str], unknown: str, around: str) -> Tokenizer:
    """One token per word. around: special tokens before and after a text, which is `$A`."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = [(name, special.index(name)) for name in around.split() if name in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return tokenizer


if __name__ == "__main__":
    main()
