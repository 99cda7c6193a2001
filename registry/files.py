"""Reading files that somebody else wrote: regular files only, and never more than a bound."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

DOCUMENT_BYTES = 16 << 20
"""The largest JSON document that is read. A spec with a thousand layers written out takes about two megabytes."""

SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; `OSError` for anything else, which could block, never end or act when it is read.

    The type is checked before the file is opened and again on the descriptor, in case the path was replaced in between.
    """
    refuse_special(path, Path(path).stat().st_mode)
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
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"{max(size, len(content)):,} bytes, more than the limit of {limit:,}", str(path))
    return content


def read_text(path: str | Path, limit: int = DOCUMENT_BYTES) -> str:
    """The content of a regular UTF-8 file; `OSError` as in `read_bytes`, `UnicodeDecodeError` where it is not UTF-8."""
    return read_bytes(path, limit).decode("utf-8")
