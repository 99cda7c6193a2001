"""Renaming a finished folder to its final name, so that neither a killed process nor a power loss leaves half of one."""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

CURRENT_FOLDER = -100
"""AT_FDCWD: the paths are not relative to an open folder."""
EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2), Linux 3.15 and later."""


def publish(staging: Path, target: Path, old: Path, check: Callable[[Path], object]) -> None:
    """Move the folder `staging` to `target` and remove what was there.

    Its content is on the disk before it gets its name. An existing folder is exchanged with it atomically, or, where the system
    cannot do that, moved to `old` first. `check` is called with the existing folder before that is removed; if it raises,
    nothing has changed.
    """
    flush(staging)
    if target.is_dir() and exchange(staging, target):
        try:
            check(staging)  # the folder that was at `target`
        except BaseException:
            exchange(staging, target)
            raise
        old = staging
    else:
        replace(staging, target, old)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace(staging: Path, target: Path, old: Path) -> None:
    """In two steps: the folder in the target's place moves to `old`, and back if the second step fails."""
    if target.is_dir():
        target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        if old.is_dir():
            old.rename(target)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths atomically. False, with nothing changed, if the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if rename(CURRENT_FOLDER, os.fsencode(one), CURRENT_FOLDER, os.fsencode(other), EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(error, os.strerror(error), str(other))


def flush(folder: Path) -> None:
    """Wait until a folder's files, and the folder, are on the disk."""
    for path in folder.iterdir():
        if path.is_dir():
            flush(path)
        else:
            sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until one file or folder is on the disk; some file systems cannot do this for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
