"""Processes that do not import modules from the current folder, where a stranger's files may be."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PYTHONSAFEPATH"


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Python processes started in this block do not import modules from the current folder.

    A variable tells a new Python so. One that multiprocessing starts also gets this process's `sys.path`.
    """
    before, path = os.environ.get(VARIABLE), list(sys.path)
    os.environ[VARIABLE] = "1"
    sys.path[:] = safe_path(path)
    try:
        yield
    finally:
        sys.path[:] = path
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def safe_path(path: list[str]) -> list[str]:
    """`path` without the current folder, which `python -m`, `python -c` and the interactive prompt put first.

    A script's own folder stays, and so does the one that contains pairform.
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__spec__", None) is None and hasattr(main, "__file__")
    first = path[0] if path else ""
    if sys.flags.safe_path or script or Path(first).absolute() == Path(__file__).absolute().parents[2]:
        return path
    return path[1:]
