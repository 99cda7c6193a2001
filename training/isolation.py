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
    path = list(sys.path)
    sys.path[:] = safe_path(path)
    try:
        with variable(VARIABLE, "1"):
            yield
    finally:
        sys.path[:] = path


@contextlib.contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, for processes started in this block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
