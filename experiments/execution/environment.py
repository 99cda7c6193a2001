"""Where a study was run, and how to run it again."""

import os
import platform
import shlex
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pairform.blocks.functional import processor
from pairform.registry import read_bytes

CONFIGURATION = {64: "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n"}
"""Of a Git directory, by the length of a commit's name."""
INDEX_BYTES = 1 << 28
"""The largest index that is read; that of the Linux kernel's repository takes about 9 MB."""
SECONDS = 30
"""How long Git may take: a repository may hold pipes in the place of files."""
PACKAGES = ("pairform", "torch", "numpy", "pydantic", "tokenizers")


def environment(source: Path, command: list[str]) -> dict[str, Any]:
    """Versions, the machine, the commit of the repository that holds the study's file, and the command that ran it."""
    return {
        "versions": {"python": platform.python_version()} | {name: known(name) for name in PACKAGES if known(name)},
        "machine": machine(),
        "commit": commit(source),
        "command": shlex.join(command),
    }


def known(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    found: dict[str, Any] = {"system": platform.platform(), "processor": processor.name()}
    found |= {"instructions": processor.instructions(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def commit(folder: Path) -> str | None:
    """The commit that is checked out around `folder`; with "+" behind it where tracked files differ from it.

    A repository's configuration can name programs to run (filters, a file monitor), so files are compared under a configuration
    of ours: a Git directory of its own that borrows the repository's objects and index.
    """
    try:
        asked = ("--show-toplevel", "--git-path", "objects", "--git-path", "index", "HEAD")
        found = git("-c", "safe.bareRepository=explicit", "-C", str(folder), "rev-parse", "--path-format=absolute", *asked)
        top, objects, index, head = found.splitlines()
        with tempfile.TemporaryDirectory() as name:
            own = Path(name)
            for part in ("objects", "refs"):
                (own / part).mkdir()
            (own / "HEAD").write_text(f"{head}\n", "utf-8")
            (own / "config").write_text(CONFIGURATION.get(len(head), ""), "utf-8")
            written = Path(index).stat()  # Git reads files that changed in the second in which the index was written
            (own / "index").write_bytes(read_bytes(index, INDEX_BYTES))
            os.utime(own / "index", ns=(written.st_atime_ns, written.st_mtime_ns))
            where = ("-c", "core.fsmonitor=false", f"--git-dir={own}", f"--work-tree={top}")
            words = ("diff", "--name-only", "--ignore-submodules=all", "--no-ext-diff", "--no-textconv", head, "--")
            changed = git(*where, *words, GIT_OBJECT_DIRECTORY=objects)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return head + "+" if changed else head


def git(*words: str, **settings: str) -> str:
    """What a command of Git prints. Settings of the caller's environment that name another repository do not count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *words],
        env=kept | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return done.stdout.strip()
