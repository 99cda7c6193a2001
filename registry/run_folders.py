"""Folders that a study or a run fills while it works: files that are replaced whole, locks, and no links."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pairform.registry.errors import OutputError, Problem
from pairform.registry.files import PARTIAL, held, replace_text, writing

OPENED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_json(path: Path, document: object) -> None:
    replace_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def remove_partials(folder: Path) -> None:
    """Remove the partial files of killed writers. No other process may be writing to the folder."""
    for file in folder.glob(f".*{PARTIAL}*"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file's lock. Without `wait`, `OutputError` if another process holds it. Nothing is written to the file."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OPENED, 0o666)
    try:
        with held(descriptor, wait):
            yield
    except BlockingIOError:
        raise OutputError(Problem(str(path.parent), "another run in progress", "a folder in which none is running")) from None


def is_locked(path: Path) -> bool:
    """Whether a process holds a file's lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | OPENED)
    except OSError:
        return False
    try:
        # a shared lock fails if a process holds the exclusive one, and does not disturb other readers
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(descriptor)
    return False


def check_links(study: Path, levels: int = 3) -> None:
    """Raise `OutputError` for a symbolic link where a run writes: in the study's folder, its trials' folder and theirs."""
    if not study.is_dir():
        return
    for item in os.scandir(study):
        if item.is_symlink():
            remedy = "Remove the link: a run would write to its target."
            raise OutputError(Problem(item.path, "a symbolic link", "a file or folder", remedy))
        if levels > 1 and item.is_dir(follow_symlinks=False):
            check_links(Path(item.path), levels - 1)
