"""Reading a tokenizer's file."""

from pathlib import Path
from typing import Any

from pairform.assemblies.preprocessing.tokenizers import whole_texts
from pairform.registry import Problem, SpecError, not_installed, read_bytes

TOKENIZER_BYTES = 256 << 20
"""Largest tokenizer file in bytes; Gemma's has about 33 million."""
Tokenizer = Any
"""A `tokenizers.Tokenizer`; that library is optional."""


def read_tokenizer(file: Path, where: str = "data.tokenizer") -> Tokenizer:
    """A tokenizer from a file of `Tokenizer.save`; `SpecError` if it cannot be read. where: the field that names it."""
    return parse_tokenizer(read_tokenizer_file(file, where), f"{where} {file}")


def read_tokenizer_file(file: Path, where: str) -> bytes:
    """A tokenizer file's content, within its limit; `SpecError` if it cannot be read."""
    try:
        return read_bytes(file, TOKENIZER_BYTES)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise SpecError(Problem(where, f"{file}: {found}", "a tokenizer.json")) from None


def parse_tokenizer(content: bytes, where: str) -> Tokenizer:
    """The tokenizer that a file's content describes, without truncation and padding. `SpecError` if it describes none."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise SpecError(not_installed(where, "tokenizers", "tokenizers")) from None
    try:
        return whole_texts(Tokenizer.from_buffer(content))
    except Exception as error:  # the library raises nothing narrower
        raise SpecError(Problem(where, str(error), "a tokenizer.json")) from None
