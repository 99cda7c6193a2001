"""Tokenizers that encode every text in full."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def whole_texts(tokenizer: "Tokenizer") -> "Tokenizer":
    """`tokenizer` without the truncation and padding of its file, which an earlier call of whoever saved it left there.

    transformers resets both for each call too.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
