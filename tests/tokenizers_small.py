"""A small tokenizer for the checkpoints of `tests.checkpoints`, in the files that transformers writes."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.checkpoints import SMALL

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]


def tokenizer(folder: Path, words: list[str] = WORDS) -> Path:
    """One token a word, `<bos>` in front of each text, and a word for every id of the vocabulary."""
    rest = [f"word{index}" for index in range(SMALL["vocab_size"] - len(SPECIAL) - len(words))]
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *words, *rest])}
    made = Tokenizer(models.WordLevel(vocabulary, SPECIAL["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL).save_pretrained(folder)
    return folder
