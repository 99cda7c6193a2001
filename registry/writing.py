"""Writing: a path that was meant, and a file that appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pairform.registry.errors import PATH, OutputError, Problem, shorten

PARTIAL = ".partial-"
"""In the hidden name that a file has until it is whole."""
UNSET = "If a variable of your shell gives the path, it is not set."


def output_path(path: str | Path) -> Path:
    """`path` as an absolute one. An empty one, which Python reads as ".", is an `OutputError`, and so "." is too."""
    if str(path) in ("", "."):
        raise OutputError(Problem("out", "an empty path or '.'", "the path of a file or folder to write", UNSET))
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise OutputError(Problem(shorten(str(path), PATH), "no home folder of that user", "a path")) from None


def new_folder_path(path: str | Path) -> Path:
    """As `output_path`, of a folder that is to be replaced whole: the working directory and those around it are refused."""
    target = output_path(path)
    here = Path.cwd().resolve()
    if target.resolve() in (here, *here.parents):
        found = "the working directory" if target.resolve() == here else "a folder around the working directory"
        raise OutputError(Problem(str(target), found, "a folder that may be replaced"))
    return target


def write_text(path: str | Path, text: str) -> None:
    """Write a file where a user asked for it, as `replace_text` does.

    A link's target is replaced, not the link. A device or a pipe is written to. Raises `OutputError`.
    """
    target = output_path(path)
    with writing(target):
        target = target.resolve()
        special = target.exists() and not target.is_file()
        if special:
            target.write_text(text, "utf-8")
    if not special:
        replace_text(target, text)


def replace_text(path: Path, text: str) -> None:
    """Write a file under a random name first, which then replaces whatever has the name, a link too.

    An error leaves what was there, or nothing. Raises `OutputError`.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{os.urandom(6).hex()}")
    with writing(path):
        try:
            with partial.open("x", encoding="utf-8") as file:
                file.write(text)
            if path.is_file():
                shutil.copymode(path, partial)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while a file is written is an `OutputError` that names it: the system's error may not."""
    try:
        yield
    except (OSError, RuntimeError, UnicodeEncodeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        found = getattr(error, "strerror", None) or str(error)
        raise OutputError(Problem(str(path), found, "a file that can be written")) from None
