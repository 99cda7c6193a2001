"""Data out of files: which ones a study learns from, which ones it measures on, and the tokenizer that goes with them."""

from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from pairform.registry import Problem, Spec, SpecError
from pairform.training.data.digests import Globs, digests, find_files
from pairform.training.data.tokens import Tokenizer, read_tokenizer


class Found(NamedTuple):
    train: list[Path]
    held_out: list[Path]
    tokenizer: Tokenizer | None
    digests: dict[str, str]


class FileData(Spec):
    """Data in files. `.gz` files are decompressed."""

    train: Globs = Field(
        description=(
            "Training files, as patterns such as `data/*.txt` relative to the study's folder. Files that `held_out` also "
            "matches are left out."
        )
    )
    held_out: Globs = Field(description="Validation files, as patterns.")
    tokenizer: str | None = Field(default=None, description="A `tokenizers` JSON file. Default: tokens are bytes.")

    def find(self, folder: Path) -> Found:
        """Missing files raise `SpecError`."""
        tokenizer = None if self.tokenizer is None else read_tokenizer(folder / self.tokenizer)
        held_out = find_files(folder, self.held_out, "data.held_out")
        train = [file for file in find_files(folder, self.train, "data.train") if file not in held_out]
        if not train:
            raise SpecError(Problem("data.train", "no file that is not held out", "at least one"))
        files = [*train, *held_out, *([] if self.tokenizer is None else [folder / self.tokenizer])]
        return Found(train, held_out, tokenizer, digests(folder, files))
