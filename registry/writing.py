"""Writing where a user asked for it: a path that was meant, and a file that appears whole or not at all."""

import contextlib
import os
import shutil
from pathlib import Path

from pairform.registry.errors import OutputError, Problem

UNSET = "If a variable of your shell gives the path, it is not set."


def output_path(path: str | Path) -> Path:
    """`path` as an absolute one. An empty one, which Python reads as ".", is an `OutputError`, and so "." is too."""
    if str(path) in ("", "."):
        raise OutputError(Problem("out", "an empty path or '.'", "the path of a file or folder to write", UNSET))
    return Path(path).expanduser().absolute()


def new_folder_path(path: str | Path) -> Path:
    """As `output_path`, of a folder that is to be replaced whole: the working directory and those around it are refused."""
    target = output_path(path)
    here = Path.cwd().resolve()
    if target.resolve() in (here, *here.parents):
        found = "the working directory" if target.resolve() == here else "a folder around the working directory"
        raise OutputError(Problem(str(target), found, "a folder that may be replaced"))
    return target


def write_text(path: str | Path, text: str) -> None:
    """Write a file under another name first and then give it its own: an error leaves what was there, or nothing.

    A link's target is replaced, not the link. A device or a pipe is written to. Raises `OutputError`.
    """
    target = output_path(path)
    partial: Path | None = None
    try:
        target = target.resolve()
        if target.exists() and not target.is_file():
            target.write_text(text, "utf-8")
            return
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        partial.write_text(text, "utf-8")
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    except OSError as error:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise OutputError(Problem(str(target), error.strerror or str(error), "a file that can be written")) from None
