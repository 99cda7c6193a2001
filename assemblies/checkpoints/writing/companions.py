"""Files that belong to a model beside its weights: tokenizer, chat template, generation settings.

A source may come from a stranger, and the copy may be published. So only files of known names are copied, only regular ones,
only from inside the source, and never more than `COMPANION_BYTES` of one.
"""

import hashlib
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.checkpoints.reading.file_names import COMPANIONS as COMPANIONS
from pairform.assemblies.checkpoints.reading.file_names import ENCODER_COMPANIONS as ENCODER_COMPANIONS
from pairform.assemblies.checkpoints.reading.file_names import ENCODER_TOKENIZER as ENCODER_TOKENIZER
from pairform.assemblies.checkpoints.reading.file_names import TOKENIZER as TOKENIZER
from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder
from pairform.assemblies.checkpoints.writing.bases import Base, bases_in, bases_of
from pairform.assemblies.families.tokens import GENERATION
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry import CheckpointError, Problem, open_regular, read_bytes

COMPANION_BYTES = 128 << 20
"""The largest companion that is read; Gemma 3's tokenizer.json takes 33 MB."""
NO_SETTINGS = GenerationSpec()
COPY = "If you trust the file behind the link, replace the link by a copy."


class Companion:
    """A file of a source that goes into a new folder as `name`. It is opened once, and closed when nothing refers to it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._raw = open_regular(path)
        weakref.finalize(self, self._raw.close)
        self.size = os.fstat(self._raw.fileno()).st_size
        check_size(path, self.size)

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
class MadeCompanion:
    """A file that is not copied: `content` goes into a new folder as `name`."""

    content: bytes
    name: str

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def digest(self) -> bytes:
        """Its SHA-256."""
        return hashlib.sha256(self.content).digest()

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class Companions:
    """What a new folder takes over from its sources beside weights.

    Attributes:
        files: tokenizer and chat template.
        generation: the content of generation_config.json.
        folders: those of all sources.
        settings: the settings of generation, of a model that is saved from memory.
        bases: the models that the weights come from.
    """

    files: tuple[Companion | MadeCompanion, ...] = ()
    generation: bytes | None = None
    folders: tuple[Path, ...] = ()
    settings: GenerationSpec = NO_SETTINGS
    bases: tuple[Base, ...] = ()

    @property
    def size(self) -> int:
        return sum(each.size for each in self.files) + len(self.generation or b"")

    def copy(self, folder: Path) -> None:
        """Copy the files into a new folder."""
        for each in self.files:
            target = folder / each.name
            target.parent.mkdir(exist_ok=True)
            with target.open("xb") as out:
                out.write(each.read())


def tokenizer_files(folder: Path, part: str) -> tuple[str, ...]:
    """Where a model's folder has what `COMPANIONS` name for a stack: beside the weights, or for an encoder with a tokenizer of
    its own in that folder."""
    own = part == "encoder" and os.path.lexists(folder / ENCODER_COMPANIONS[0])
    return ENCODER_COMPANIONS if own else COMPANIONS


def tokenizer_file(folder: Path, part: str) -> str:
    """The tokenizer's file among `tokenizer_files`."""
    return tokenizer_files(folder, part)[0]


def companions(sources: Mapping[Any, Checkpoint], made: Mapping[Any, Mapping[str, bytes]] = MappingProxyType({})) -> Companions:
    """The companions of the last stack's source, and the encoder's tokenizer if it differs.

    sources: by the stacks that they initialise; "model" is a single source, whose encoder may have a tokenizer of its own.
    made:    by source, the files of the tokenizer that replaces its own.
    """
    role, last = next((role, sources[role]) for role in ("model", "decoder", "encoder") if role in sources)
    names = dict(zip(tokenizer_files(last.folder, role), COMPANIONS, strict=True))
    files = replaced(made[role], {name: name for name in COMPANIONS}) if role in made else present(last.folder, names)
    if role == "model":
        files += present(last.folder, {name: name for name in ENCODER_COMPANIONS})
    elif role == "decoder" and "encoder" in sources:
        encoder = sources["encoder"].folder
        names = dict(zip(tokenizer_files(encoder, "encoder"), ENCODER_COMPANIONS, strict=True))
        placed = dict(zip(COMPANIONS, ENCODER_COMPANIONS, strict=True))
        own = replaced(made["encoder"], placed) if "encoder" in made else present(encoder, names)
        digests = [each.digest for each in (*files, *own) if each.name in (TOKENIZER, ENCODER_COMPANIONS[0])]
        files += own if len(set(digests)) == 2 else []
    generation = None if resolved(last.folder, GENERATION) is None else last.files.generation
    bases = bases_of(source.files for source in sources.values())
    return Companions(tuple(files), generation, tuple(source.folder for source in sources.values()), bases=bases)


def companions_in(folder: str | Path | None, settings: GenerationSpec) -> Companions:
    """All companions of a folder or hub id, which may hold a tokenizer alone, and the settings of a model in memory.

    Raises:
        CheckpointError: there is no such folder, or a companion is outside the folder, no regular file, or too large.
    """
    if folder is None:
        return Companions(settings=settings)
    folder = find_folder(folder)
    files = present(folder, {name: name for name in (*COMPANIONS, *ENCODER_COMPANIONS)})
    generation = resolved(folder, GENERATION)
    content = None if generation is None else read_bytes(generation)
    return Companions(tuple(files), content, (folder,), settings, bases_in(ModelFolder(folder)))


def replaced(made: Mapping[str, bytes], names: Mapping[str, str]) -> list[Companion | MadeCompanion]:
    """The files of a tokenizer that replaces a source's."""
    return [MadeCompanion(content, names[there]) for there, content in made.items()]


def present(source: Path, names: Mapping[str, str]) -> list[Companion | MadeCompanion]:
    """The companions that a source has. names: of each there, and in the new folder."""
    return [found for there, name in names.items() if (found := companion(source, there, name)) is not None]


def companion(source: Path, there: str, name: str) -> Companion | None:
    """Open the companion `there` of a model's folder; None if there is none.

    Raises:
        CheckpointError: it is outside the folder, no regular file, or too large.
    """
    real = resolved(source, there)
    try:
        return None if real is None else Companion(real, name)
    except OSError as error:
        raise unreadable(source / there, error) from None


def resolved(source: Path, name: str) -> Path | None:
    """Where a file of a model's folder is, through links; None if there is none.

    Raises:
        CheckpointError: it is outside the folder, other than in blobs of the same hub cache.
    """
    path = source / name
    if not os.path.lexists(path):
        return None
    try:
        real, root = path.resolve(strict=True), source.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise unreadable(path, error) from None
    # the files in a snapshot of the hub's cache are links to blobs beside it
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    if not real.is_relative_to(root) and not real.is_relative_to(blobs):
        raise CheckpointError(Problem(str(path), f"a link to {real}", "a file inside the model's folder", COPY))
    return real


def unreadable(path: Path, error: Exception) -> CheckpointError:
    found = getattr(error, "strerror", None) or str(error)
    return CheckpointError(Problem(str(path), found, "a regular file inside the model's folder"))


def check_size(path: Path, size: int) -> None:
    if size > COMPANION_BYTES:
        raise CheckpointError(Problem(str(path), f"{size:,} bytes", f"at most {COMPANION_BYTES:,}"))
