"""Reading a tokenizer's file."""

from pathlib import Path
from typing import Any

from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.registry import Problem, SpecError, read_bytes

TOKENIZER_BYTES = 256 << 20
"""Largest tokenizer file in bytes; Gemma's has about 33 million."""
Tokenizer = Any
"""A `tokenizers.Tokenizer`; that library is optional."""


def read_tokenizer(file: Path, where: str = "data.tokenizer") -> Tokenizer:
    """A tokenizer from a file of `Tokenizer.save`; `SpecError` if it cannot be read. where: the field that names it."""
    return parsed_tokenizer(read_tokenizer_file(file, where), f"{where} {file}")


def read_tokenizer_file(file: Path, where: str) -> bytes:
    """A tokenizer file's content, within its limit; `SpecError` if it cannot be read."""
    try:
        return read_bytes(file, TOKENIZER_BYTES)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise SpecError(Problem(where, f"{file}: {found}", "a tokenizer.json")) from None
