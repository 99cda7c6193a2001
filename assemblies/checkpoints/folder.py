"""Folders that appear whole or not at all."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pairform.registry import OutputError, Problem

MODEL_FILES = ("spec.json", "config.json")
"""Only a folder that holds one of these is ever replaced."""


@contextlib.contextmanager
def new_folder(target: str | Path, *, overwrite: bool = False, sources: tuple[Path, ...] = (), size: int = 0) -> Iterator[Path]:
    """A hidden folder beside `target` to write into; it takes the final name when the block ends without an error.

    An error removes it. A process killed meanwhile leaves it behind under its hidden name, and the next writer of the same
    target removes it. `size` bytes must be free; `sources` may not be touched.
    """
    target = Path(target).expanduser().absolute()
    check_target(target, overwrite, sources)
    parent = existing_parent(target)
    created = [folder for folder in target.parents if parent in folder.parents]
    free = shutil.disk_usage(parent).free
    if size > free:
        raise OutputError(Problem(str(target), f"{free:,} bytes free on its disk", f"{size:,} bytes to be written"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        staging = Path(tempfile.mkdtemp(prefix=staging_prefix(target), dir=target.parent))
    except OSError as error:
        raise write_error(target, error) from None
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staging.chmod(0o777 & ~umask())
        yield staging
        publish(staging, target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise write_error(target, error) from None
        raise
    finally:
        os.close(lock)


def check_target(target: Path, overwrite: bool, sources: tuple[Path, ...]) -> None:
    """Refuse a target that would harm a source or something that is not a model."""
    resolved = target.resolve()
    for source in sources:
        inner = source.resolve()
        if inner == resolved or resolved in inner.parents or inner in resolved.parents:
            raise OutputError(Problem(str(target), f"a folder that is, holds or is inside the source {source}", "one apart from it"))
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(Problem(str(target), "a file or a link", "a folder's name that is free"))
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise OutputError(Problem(str(target), "a folder that is not empty", "a new or empty one", "Or ask to overwrite it."))
    if not any((target / name).is_file() for name in MODEL_FILES):
        found = "a folder that holds no model, which is never overwritten"
        raise OutputError(Problem(str(target), found, f"one with {' or '.join(MODEL_FILES)}"))


def publish(staging: Path, target: Path) -> None:
    """Give the finished folder its name; an old one goes only after the new one is in its place."""
    old = None
    if target.is_dir():
        old = Path(tempfile.mkdtemp(prefix=staging_prefix(target), dir=target.parent))
        target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        if old is not None:
            old.rename(target)
        raise
    if old is not None:
        shutil.rmtree(old)


def remove_abandoned(target: Path) -> None:
    """Remove what killed writers of the same target left; a writer at work holds a lock on its folder."""
    for left in target.parent.glob(f"{staging_prefix(target)}*"):
        lock = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def staging_prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def existing_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.is_dir())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_error(target: Path, error: OSError) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Nothing was left behind." + (" Free some space, or choose another disk." if full else "")
    return OutputError(Problem(str(target), error.strerror or str(error), "a disk that takes the folder", remedy))
