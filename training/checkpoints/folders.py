"""The folder of a run's checkpoints: `step-N` is whole, since it got this name last; hidden ones are not."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pairform.assemblies.checkpoints.writing.folder import write_error
from pairform.assemblies.checkpoints.writing.publishing import publish
from pairform.registry import OutputError, Problem, locked

WHOLE = re.compile(r"step-(0|[1-9]\d{0,17})")
HIDDEN = re.compile(r"\.step-\d{1,18}\.(partial|removed)")


def steps(folder: Path) -> list[int]:
    """The steps of whole checkpoints, in order. Links are not followed."""
    if not folder.is_dir():
        return []
    found = [(WHOLE.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(int(match[1]) for match, path in found if match and path.is_dir() and not path.is_symlink())


def latest(folder: Path) -> int | None:
    """The step of the newest whole checkpoint, or None."""
    return max(steps(folder), default=None)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step}"


def partial_path(folder: Path, step: int) -> Path:
    return folder / f".step-{step}.partial"


def removed_path(folder: Path, step: int) -> Path:
    return folder / f".step-{step}.removed"


@contextmanager
def new_checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `step-N` when the block ends without an error, after its files are on the
    disk. A checkpoint of the same step is replaced.

    Raises:
        OutputError: the folder cannot be written, or another process writes the same checkpoint.
    """
    partial, whole = partial_path(folder, step), checkpoint_path(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if partial.exists() and not discard(partial):
            raise OutputError(Problem(str(partial), "a folder that another process is writing", "one run at a time"))
        partial.mkdir()
        with locked(partial):
            try:
                yield partial
                publish(partial, whole, removed_path(folder, step), lambda _: None)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise write_error(whole, error) from None


def clear(folder: Path) -> None:
    """Remove what killed processes left: unfinished checkpoints, and old ones that were being removed."""
    if folder.is_dir():
        for path in [path for path in folder.iterdir() if HIDDEN.fullmatch(path.name)]:
            discard(path)


def discard(folder: Path) -> bool:
    """Remove a folder, unless a running process holds its lock. A link or file of such a name is left alone."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    with suppress(BlockingIOError, FileNotFoundError), locked(folder, wait=False):
        shutil.rmtree(folder)
        return True
    return False


def prune(folder: Path, last: int | None, every: int | None = None) -> None:
    """Remove all checkpoints but the `last` newest, and those whose step is a multiple of `every`. None for `last` keeps all.

    Each is hidden by renaming before its files are removed, so that a killed process leaves no incomplete `step-N`.
    """
    if last is None:
        return
    for step in steps(folder)[: -last or None]:
        if every is None or step % every:
            hidden = removed_path(folder, step)
            checkpoint_path(folder, step).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
