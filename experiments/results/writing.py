"""Writing into a study's folder: whole files, locks that end with their process, and never through a symbolic link."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pairform.registry import PARTIAL, OutputError, Problem, replace_text, writing

OPENED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_json(path: Path, document: object) -> None:
    replace_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else writes to now."""
    for left in folder.glob(f".*{PARTIAL}*"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file's lock; without `wait`, one that another process holds is an error. Nothing is written into the file."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OPENED, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(Problem(str(path.parent), "another run at work in it", "a study that nobody runs now")) from None
    finally:
        os.close(descriptor)


def held(path: Path) -> bool:
    """Whether a process holds a file's lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | OPENED)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(descriptor)
    return False


def check_links(study: Path, levels: int = 3) -> None:
    """Refuse a study's folder that holds a symbolic link where a run writes: its files, its trials and theirs."""
    if not study.is_dir():
        return
    for item in os.scandir(study):
        if item.is_symlink():
            remedy = "Remove the link: a run would write to where it points."
            raise OutputError(Problem(item.path, "a symbolic link", "a file or folder of the study's own", remedy))
        if levels > 1 and item.is_dir(follow_symlinks=False):
            check_links(Path(item.path), levels - 1)
