"""The folder of a preparation: what it may hold, and how a finished preparation takes its place."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pairform.registry import PARTIAL, OutputError, Problem, locked, new_folder_path, printable, writing
from pairform.training.data.corpus.manifest import MANIFEST, TOKENIZER, Manifest

STAGING = ".preparing"
"""The folder, in the shard folder, in which a preparation works."""
OWN = re.compile(rf"\d{{3,}}-(train|held_out)(-source|-target)?-\d{{5,}}\.(tokens|documents)|{MANIFEST}|{TOKENIZER}")
"""Names of the files of a shard folder. Only such files are ever removed."""
NAMED = 8


@contextlib.contextmanager
def opened(target: str | Path) -> Iterator[Path]:
    """The folder to write, made if it does not exist, and locked.

    Raises:
        OutputError: it cannot be made, holds something that is none of a shard folder's files, or is being written.
    """
    out = new_folder_path(target)
    with writing(out):
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise OutputError(Problem(str(out), "a file or a link", "the name of a folder"))
        out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out, wait=False):
            check_own(out)
            yield out
    except BlockingIOError:
        raise OutputError(Problem(str(out), "another preparation in progress", "a folder that nobody writes")) from None


def check_own(out: Path) -> None:
    """`OutputError` if a folder holds something that is none of a shard folder's files."""
    with writing(out):
        foreign = sorted(path.name for path in out.iterdir() if not own(path))
    if foreign:
        found = f"{', '.join(map(printable, foreign[:NAMED]))}{' and others' if foreign[NAMED:] else ''}"
        raise OutputError(Problem(str(out), found, "an empty folder, or one that holds a prepared corpus and nothing else"))


def own(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.name == STAGING:
        return path.is_dir() and all(not inner.is_symlink() and inner.is_file() for inner in path.iterdir())
    return path.is_file() and OWN.fullmatch(path.name) is not None


def begin(out: Path) -> Path:
    """An empty folder to work in."""
    staging = out / STAGING
    with writing(staging):
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
    return staging


def clean(staging: Path) -> None:
    """Remove the partial files of a killed process."""
    with writing(staging):
        for file in staging.glob(f".*{PARTIAL}*"):
            file.unlink()


def publish(out: Path, manifest: Manifest) -> None:
    """Move a finished preparation's files to their folder, in place of what is there.

    The manifest, without which a folder is invalid, goes first and comes last. A killed process leaves the rest to the next
    call: files that have been moved are where they belong.
    """
    staging = out / STAGING
    wanted = {file for name, _ in manifest.shards() for file in (name.tokens, name.documents)}
    wanted |= {TOKENIZER} if manifest.tokenizer.sha256 else set()
    with writing(out):
        (out / MANIFEST).unlink(missing_ok=True)
        sync(out)
        for file in list(out.iterdir()):
            if file.name not in wanted and file.name != STAGING:
                file.unlink()
        for name in wanted:
            if (staging / name).exists():
                (staging / name).replace(out / name)
        sync(out)
        (staging / MANIFEST).replace(out / MANIFEST)
        sync(out)
        shutil.rmtree(staging)


def check_space(out: Path, needed: int) -> None:
    """`OutputError` if the disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(out).free
    if needed > free:
        expected = f"about {needed:,} for the rest of the corpus"
        remedy = "Make room, and run the same command to continue."
        raise OutputError(Problem(str(out), f"{free:,} bytes free on its disk", expected, remedy))


def sync(folder: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot do it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
