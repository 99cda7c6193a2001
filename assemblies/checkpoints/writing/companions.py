"""Files that belong to a model beside its weights: tokenizer, chat template, generation settings.

A source may come from a stranger, and the copy may be published. So only files of known names are copied, only regular ones,
only from inside the source, and never more than `COMPANION_BYTES` of one.
"""

import hashlib
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pairform.assemblies.families.tokens import GENERATION
from pairform.registry import CheckpointError, Problem, open_regular

TOKENIZER = "tokenizer.json"
COMPANIONS = (
    TOKENIZER,
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
)
"""Names of the files that are copied from a source."""
ENCODER_TOKENIZER = "encoder_tokenizer"
"""The folder of the encoder's tokenizer if it differs from the decoder's."""
COMPANION_BYTES = 128 << 20
"""The largest companion that is read; Gemma 3's tokenizer.json takes 33 MB."""
COPY = "If you trust the file behind the link, replace the link by a copy."


class SourceFile:
    """A file of a source, opened once and closed when nothing refers to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw = open_regular(path)
        weakref.finalize(self, self._raw.close)
        self.size = os.fstat(self._raw.fileno()).st_size

    @cached_property
    def digest(self) -> bytes:
        """Its SHA-256."""
        self._raw.seek(0)
        return hashlib.file_digest(self._raw, "sha256").digest()

    def read(self) -> bytes:
        """Its bytes, which may have changed since it was opened."""
        try:
            self._raw.seek(0)
            content = self._raw.read(COMPANION_BYTES + 1)
        except OSError as error:
            raise CheckpointError(Problem(str(self.path), error.strerror or str(error), "a readable file")) from None
        check_size(self.path, len(content))
        return content


@dataclass(frozen=True)
class Companion:
    """A file of a source that goes into a new folder as `name`."""

    file: SourceFile
    name: str

    @property
    def size(self) -> int:
        return self.file.size


def companion(source: Path, name: str) -> Companion | None:
    """Open the companion `name` of a model's folder, through links; None if there is none.

    Raises:
        CheckpointError: it is outside the folder (other than in blobs of the same hub cache), no regular file, or too large.
    """
    path = source / name
    if not os.path.lexists(path):
        return None
    try:
        real, root = path.resolve(strict=True), source.resolve()
        blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
        if not real.is_relative_to(root) and not real.is_relative_to(blobs):
            raise CheckpointError(Problem(str(path), f"a link to {real}", "a file inside the model's folder", COPY))
        file = SourceFile(real)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        found = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise CheckpointError(Problem(str(path), found, "a regular file inside the model's folder")) from None
    check_size(path, file.size)
    return Companion(file, name)


def check_size(path: Path, size: int) -> None:
    if size > COMPANION_BYTES:
        raise CheckpointError(Problem(str(path), f"{size:,} bytes", f"at most {COMPANION_BYTES:,}"))


def companions(sources: Mapping[str, Path]) -> list[Companion]:
    """The companions of the last stack's source, and the encoder's tokenizer if it differs."""
    main = sources["decoder" if "decoder" in sources else "encoder"]
    found = present(main, COMPANIONS)
    encoder = sources.get("encoder", main)
    if encoder != main:
        theirs = next((each for each in found if each.name == TOKENIZER), None)
        own = companion(encoder, TOKENIZER)
        if own is not None and theirs is not None and own.file.digest != theirs.file.digest:
            others = present(encoder, [name for name in COMPANIONS if name not in (TOKENIZER, GENERATION)])
            found += [replace(each, name=f"{ENCODER_TOKENIZER}/{each.name}") for each in (own, *others)]
    return found


def all_companions(source: Path) -> list[Companion]:
    """Every companion of one model, the encoder's own tokenizer included."""
    return companions({"decoder": source}) + encoder_companions(source)


def encoder_companions(source: Path) -> list[Companion]:
    """The files of the encoder's own tokenizer, as they are named in the model's folder."""
    return present(source, [f"{ENCODER_TOKENIZER}/{name}" for name in COMPANIONS if name != GENERATION])


def present(source: Path, names: Sequence[str]) -> list[Companion]:
    return [found for name in names if (found := companion(source, name)) is not None]


def copy_companions(folder: Path, found: Sequence[Companion]) -> None:
    """Copy companions into a new folder."""
    for each in found:
        target = folder / each.name
        target.parent.mkdir(exist_ok=True)
        with target.open("xb") as out:
            out.write(each.file.read())
