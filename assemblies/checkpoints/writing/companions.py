"""Files that belong to a model beside its weights: tokenizer, chat template, generation settings.

A source may come from a stranger, and what is written may be published. So only files of known names are copied, only regular
ones, only from inside the source, and never more than `COMPANION_BYTES` of one.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairform.assemblies.checkpoints.writing.checksum import sha256
from pairform.assemblies.families.generation import GENERATION
from pairform.registry import CheckpointError, Problem, open_regular, read_bytes

COMPANIONS = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
)
"""Files that come along from a source."""
ENCODER_TOKENIZER = "encoder_tokenizer"
"""Where the encoder's tokenizer goes if it is not the decoder's."""
COMPANION_BYTES = 128 << 20
"""The largest companion that is read; Gemma 3's tokenizer.json takes 33 MB."""
COPY = "If you trust the file that it leads to, put a copy in its place."


@dataclass(frozen=True)
class Companion:
    """A file of a source, `size` bytes long, that goes into a new folder as `name`."""

    file: Path
    name: str
    size: int


def companion(source: Path, name: str) -> Companion | None:
    """The companion `name` of a model's folder, with its links resolved; None where there is none.

    A `CheckpointError` for one that leads out of the folder (except to the blobs of the same hub cache), is no regular file, or
    is too large.
    """
    path = source / name
    if not os.path.lexists(path):
        return None
    try:
        real, root = path.resolve(strict=True), source.resolve()
        if not real.is_relative_to(root) and not real.is_relative_to(blobs(root)):
            raise CheckpointError(Problem(str(path), f"a link to {real}", "a file inside the model's folder", COPY))
        with open_regular(real) as raw:
            size = os.fstat(raw.fileno()).st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        found = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(Problem(str(path), found, "a regular file inside the model's folder")) from None
    if size > COMPANION_BYTES:
        raise CheckpointError(Problem(str(path), f"{size:,} bytes", f"at most {COMPANION_BYTES:,}"))
    return Companion(real, name, size)


def blobs(root: Path) -> Path:
    """Where the files of a snapshot in the hub's cache are; for any other folder, nowhere outside it."""
    return root.parent.parent / "blobs" if root.parent.name == "snapshots" else root


def companions(sources: Mapping[str, Path]) -> list[Companion]:
    """The companions of the last stack's source; the encoder's tokenizer beside them if it is another."""
    main = sources["decoder" if "decoder" in sources else "encoder"]
    found = present(main, COMPANIONS)
    encoder = sources.get("encoder", main)
    own, other = companion(encoder, "tokenizer.json"), companion(main, "tokenizer.json")
    if own is not None and other is not None and sha256(own.file) != sha256(other.file):
        found += [
            Companion(each.file, f"{ENCODER_TOKENIZER}/{each.name}", each.size)
            for each in present(encoder, [name for name in COMPANIONS if name != GENERATION])
        ]
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
            out.write(read_companion(each))


def read_companion(found: Companion) -> bytes:
    """The bytes of a companion, which may have changed since it was found."""
    try:
        return read_bytes(found.file, COMPANION_BYTES)
    except OSError as error:
        expected = "a companion that can be read"
        raise CheckpointError(Problem(str(found.file), error.strerror or str(error), expected)) from None
