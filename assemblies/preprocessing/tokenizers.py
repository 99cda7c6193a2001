"""Tokenizers that encode every text in full."""

from typing import TYPE_CHECKING

from pairform.registry import Problem, SpecError, not_installed

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def whole_texts(tokenizer: "Tokenizer") -> "Tokenizer":
    """`tokenizer` without the truncation and padding of its file, which an earlier call of whoever saved it left there.

    transformers resets both for each call too.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def parsed_tokenizer(content: bytes, where: str) -> "Tokenizer":
    """The tokenizer that a tokenizer.json describes, without truncation and padding. where: names it in errors.

    Raises:
        SpecError: it describes none, or the tokenizers library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise SpecError(not_installed(where, "tokenizers", "tokenizers")) from None
    try:
        return whole_texts(Tokenizer.from_buffer(content))
    except Exception as error:  # the library raises nothing narrower
        raise SpecError(Problem(where, str(error), "a tokenizer.json")) from None
