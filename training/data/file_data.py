"""Data in files: which files a study trains and validates on, their digests, and the tokenizer."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import Field

from pairform.registry import Problem, Spec, SpecError, open_regular
from pairform.training.data.files import CHUNK, Allowance
from pairform.training.data.globs import Globs, find_files
from pairform.training.data.tokenizer_files import Tokenizer, read_tokenizer

T = TypeVar("T")


class Files(NamedTuple):
    """Files found. digests: SHA-256 by path relative to the study's folder, tokenizers included."""

    train: list[Path]
    held_out: list[Path]
    tokenizer: Tokenizer | None
    encoder_tokenizer: Tokenizer | None
    digests: dict[str, str]

    def read(self, items_of: Callable[[Path, Allowance], Iterable[T]]) -> tuple[list[T], list[T]]:
        """What `items_of` reads from the training files and from the held-out ones, under one limit of their size."""
        allowance = Allowance()
        train, held_out = (
            [item for file in split for item in items_of(file, allowance)] for split in (self.train, self.held_out)
        )
        return train, held_out


class FileData(Spec):
    """Data in files. `.gz` files are decompressed."""

    train: Globs = Field(
        description="Training files, as patterns such as `data/*.txt` relative to the study's folder. Files that `held_out` "
        "also matches are left out."
    )
    held_out: Globs = Field(description="Validation files, as patterns.")
    tokenizer: str | None = Field(default=None, description="A `tokenizers` JSON file. Default: tokens are bytes.")
    encoder_tokenizer: str | None = Field(
        default=None,
        description="A `tokenizers` JSON file for the sources of encoder-decoders whose encoder has other tokens than the "
        "decoder. Default: both have the same.",
    )

    def find(self, folder: Path) -> Files:
        """The files that the patterns match in `folder`; `SpecError` if any is missing."""
        if self.encoder_tokenizer is not None and self.tokenizer is None:
            raise SpecError(Problem("data.encoder_tokenizer", "one without `tokenizer`", "a tokenizer for each side"))
        tokenizer = None if self.tokenizer is None else read_tokenizer(folder / self.tokenizer)
        own = self.encoder_tokenizer
        encoder_tokenizer = None if own is None else read_tokenizer(folder / own, "data.encoder_tokenizer")
        held_out = find_files(folder, self.held_out, "data.held_out")
        train = [file for file in find_files(folder, self.train, "data.train") if file not in held_out]
        if not train:
            raise SpecError(Problem("data.train", "no file that is not held out", "at least one"))
        tokenizers = [folder / name for name in (self.tokenizer, self.encoder_tokenizer) if name is not None]
        files = [*train, *held_out, *tokenizers]
        return Files(train, held_out, tokenizer, encoder_tokenizer, digests(folder, files))


def digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file's bytes, by its path relative to `folder`; `SpecError` beyond the limit of all data."""
    paths = {Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix(): file for file in files}
    allowance = Allowance()
    return {name: digest(paths[name], allowance) for name in sorted(paths)}


def digest(file: Path, allowance: Allowance) -> str:
    found = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            while chunk := stream.read(CHUNK):
                allowance.take(len(chunk), file)
                found.update(chunk)
    except OSError as error:
        raise SpecError(Problem(str(file), error.strerror or str(error), "a regular file that can be read")) from None
    return found.hexdigest()
