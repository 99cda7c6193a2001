"""A tokenizer of a few words, for models of `tests.catalogue.places`."""

from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<pad>", "<eos>", "<bos>", "the", "cat", "dog", "runs", "sleeps", "and", "a", "bird", "sings", "?", ":", "<unk>"]


def tokenizer() -> Any:
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
