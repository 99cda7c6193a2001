"""Data in files: which files a study trains and validates on, their digests, and the tokenizer."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from pairform.registry import Problem, Spec, SpecError, open_regular
from pairform.training.data.files import CHUNK, Allowance
from pairform.training.data.globs import Globs, find_files
from pairform.training.data.tokenizer_files import Tokenizer, read_tokenizer


class Files(NamedTuple):
    """Files found. digests: SHA-256 by path relative to the study's folder, the tokenizer included."""

    train: list[Path]
    held_out: list[Path]
    tokenizer: Tokenizer | None
    digests: dict[str, str]


class FileData(Spec):
    """Data in files. `.gz` files are decompressed."""

    train: Globs = Field(
        description="Training files, as patterns such as `data/*.txt` relative to the study's folder. Files that `held_out` "
        "also matches are left out."
    )
    held_out: Globs = Field(description="Validation files, as patterns.")
    tokenizer: str | None = Field(default=None, description="A `tokenizers` JSON file. Default: tokens are bytes.")

    def find(self, folder: Path) -> Files:
        """The files that the patterns match in `folder`; `SpecError` if any is missing."""
        tokenizer = None if self.tokenizer is None else read_tokenizer(folder / self.tokenizer)
        held_out = find_files(folder, self.held_out, "data.held_out")
        train = [file for file in find_files(folder, self.train, "data.train") if file not in held_out]
        if not train:
            raise SpecError(Problem("data.train", "no file that is not held out", "at least one"))
        files = [*train, *held_out, *([] if self.tokenizer is None else [folder / self.tokenizer])]
        return Files(train, held_out, tokenizer, digests(folder, files))


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


def fingerprint(digests: dict[str, str]) -> str:
    """A short digest of all files, recorded in each trial; empty without files."""
    text = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if digests else ""
