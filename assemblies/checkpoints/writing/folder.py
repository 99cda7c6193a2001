"""Folders that appear whole or not at all."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC
from pairform.assemblies.checkpoints.writing.contents import foreign_files, holds_model
from pairform.assemblies.checkpoints.writing.publishing import publish
from pairform.registry import PATH, OutputError, Problem, locked, new_folder_path, shorten

NAMED = 8
"""How many files an error names."""


@contextlib.contextmanager
def new_folder(target: str | Path, *, overwrite: bool = False, sources: tuple[Path, ...] = (), size: int = 0) -> Iterator[Path]:
    """A hidden folder beside `target` to write into, which gets the final name when the block ends without an error.

    An error removes it. A killed process leaves it under its hidden name, and the next writer of the same target removes it.

    Args:
        overwrite: replace a model in `target`.
        sources: folders that the target may not touch.
        size: bytes that must be free.

    Raises:
        OutputError: the target cannot be written, or holds something that is not a model.
    """
    target = check_target(target, overwrite, sources)
    with contextlib.ExitStack() as undo:
        try:
            check_space(target, size)
            # undone in reverse order: first the staging folder, then the parents made for it
            undo.callback(remove_empty, [folder for folder in target.parents if not folder.exists()])
            target.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(target)
            check_content(target, overwrite)
            staging = target.parent / f"{staging_prefix(target)}{token_hex(8)}"
            staging.mkdir()
            undo.callback(shutil.rmtree, staging, ignore_errors=True)
            with locked(staging):
                yield staging
                check_content(target, overwrite)  # another writer may have been here meanwhile
                publish(staging, target, replaced(target), lambda old: check_content(old, overwrite))
        except OSError as error:
            raise write_error(target, error) from None
        undo.pop_all()


def check_target(target: str | Path, overwrite: bool, sources: tuple[Path, ...]) -> Path:
    """The absolute path of a target; an `OutputError` if writing it would damage a source or files that are not a model's."""
    if target == "":
        raise OutputError(Problem("", "an empty path", "the name of a folder", "Is a variable unset?"))
    try:
        target = new_folder_path(target)
        resolved = target.resolve()
        for source in sources:
            inner = source.resolve()
            if inner == resolved or resolved in inner.parents or inner in resolved.parents:
                found = f"a folder that is, holds or is inside the source {source}"
                raise OutputError(Problem(str(target), found, "one apart from it"))
        check_content(target, overwrite)
    except (OSError, ValueError, TypeError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise OutputError(Problem(shorten(str(target), PATH), found, "a path that a folder can have")) from None
    return target


def check_content(target: Path, overwrite: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(Problem(str(target), "a file or a link", "a folder's name that is free"))
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        remedy = "Or overwrite it: `--overwrite`, or `overwrite=True` in Python."
        raise OutputError(Problem(str(target), "a folder that is not empty", "a new or empty one", remedy))
    if not holds_model(target):
        found = "a folder that holds no model, which is never overwritten"
        raise OutputError(Problem(str(target), found, f"one with {SPEC}, or with {CONFIG} and weights"))
    if foreign := foreign_files(target):
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        found = f"{', '.join(foreign[:NAMED])}{more} beside the model"
        remedy = "Move them, or choose another folder: overwriting would delete them."
        raise OutputError(Problem(str(target), found, "a folder that holds a model and nothing else", remedy))


def check_space(target: Path, size: int, what: str = "to be written") -> None:
    """Check that the disk has room for `size` bytes below `target`, which need not exist."""
    parent = next(parent for parent in target.parents if parent.is_dir())
    free = shutil.disk_usage(parent).free
    if size > free:
        raise OutputError(Problem(str(target), f"{free:,} bytes free on its disk", f"{size:,} bytes {what}"))


def clear_leftovers(target: Path) -> None:
    """Remove what killed writers of the same target left. A running writer holds a lock on its folder.

    A writer killed between the two renames of `publishing.replace` left the old folder under another name; it is renamed back.
    """
    old = replaced(target)
    check_content(old, overwrite=True)  # no file is removed for its name alone
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    for left in [path for path in target.parent.iterdir() if path.name.startswith(staging_prefix(target))]:
        if left.is_dir() and not left.is_symlink():
            with contextlib.suppress(BlockingIOError, FileNotFoundError), locked(left, wait=False):
                shutil.rmtree(left)


def remove_empty(folders: list[Path]) -> None:
    """Remove the folders that hold nothing, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def staging_prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def replaced(target: Path) -> Path:
    """The temporary path of the folder that is being replaced."""
    return target.with_name(f".{target.name}.replaced")


def write_error(target: Path, error: OSError) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Nothing was left behind." + (" Free some space, or choose another disk." if full else "")
    return OutputError(Problem(str(target), error.strerror or str(error), "a disk that takes the folder", remedy))
