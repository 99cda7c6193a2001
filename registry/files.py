"""Files: reading regular ones within a bound, and writing such that a file appears whole or not at all."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from pairform.registry.errors import PATH, OutputError, Problem, shorten

DOCUMENT_BYTES = 16 << 20
"""Largest JSON document that is read. A spec with a thousand layers written out takes about two megabytes."""

SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}
PARTIAL = ".partial-"
"""Part of the hidden name of a file that is being written."""
UNSET = "If a variable of your shell gives the path, it is not set."


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading.

    The type is checked before opening and again on the descriptor, in case the path was replaced in between.

    Returns:
        The file, open for reading bytes.

    Raises:
        OSError: there is no such file, or it is a pipe, device or socket, which may block, never end or have side effects.
    """
    refuse_special(path, Path(path).stat().st_mode)
    # without O_NONBLOCK, opening a pipe that replaced the file would block
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_special(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_special(path: str | Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{SPECIAL.get(stat.S_IFMT(mode), 'a special file')}, not a regular file", str(path))


def read_bytes(path: str | Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """The content of a regular file; `OSError` where it is longer than `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # one more byte than allowed: the file may have grown since `fstat`
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"{max(size, len(content)):,} bytes, more than the limit of {limit:,}", str(path))
    return content


def read_text(path: str | Path, limit: int = DOCUMENT_BYTES) -> str:
    """The content of a regular UTF-8 file; `OSError` as in `read_bytes`, `UnicodeDecodeError` where it is not UTF-8."""
    return read_bytes(path, limit).decode("utf-8")


def output_path(path: str | Path) -> Path:
    """`path` as an absolute path. `OutputError` for an empty one, and for ".", which Python makes of an empty one."""
    if str(path) in ("", "."):
        raise OutputError(Problem("out", "an empty path or '.'", "the path of a file or folder to write", UNSET))
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise OutputError(Problem(shorten(str(path), PATH), "no home folder of that user", "a path")) from None


def new_folder_path(path: str | Path) -> Path:
    """As `output_path`, for a folder to be replaced: `OutputError` for the working directory and its parents."""
    target = output_path(path)
    here = Path.cwd().resolve()
    if target.resolve() in (here, *here.parents):
        found = "the working directory" if target.resolve() == here else "a parent of the working directory"
        raise OutputError(Problem(str(target), found, "a folder that may be replaced"))
    return target


def write_text(path: str | Path, text: str) -> None:
    """Write a file at a path given by a user, as `replace_text` does, but follow links and write to devices and pipes.

    Raises:
        OutputError: the file cannot be written.
    """
    target = output_path(path)
    with writing(target):
        target = target.resolve()
        special = target.exists() and not target.is_file()
        if special:
            target.write_text(text, "utf-8")
    if not special:
        replace_text(target, text)


def replace_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a UTF-8 file as `replace_bytes` does."""
    with writing(path):
        data = text.encode("utf-8")
    replace_bytes(path, data, durable=durable)


def replace_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file under a random name, then rename it to `path`, replacing a file or link there.

    durable: whether the data must be on the disk before the file gets its name, so that a power loss leaves the old or the new.

    Raises:
        OutputError: the file cannot be written; what was there is unchanged.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{os.urandom(6).hex()}")
    with writing(path):
        try:
            with partial.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if path.is_file():
                shutil.copymode(path, partial)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing `path` into an `OutputError` that names it; the system's error may not."""
    try:
        yield
    except (OSError, RuntimeError, UnicodeEncodeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(Problem(str(path), found, "a file that can be written")) from None


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock, which is released when the process ends. `BlockingIOError` without `wait` if it is taken."""
    with held(os.open(folder, os.O_RDONLY), wait):
        yield


@contextlib.contextmanager
def held(descriptor: int, wait: bool) -> Iterator[None]:
    """Hold the lock of an open file or folder, then close it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
