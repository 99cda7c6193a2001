"""Record of where a study was run and with which command."""

import os
import platform
import shlex
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import pairform
from pairform.blocks.functional import processor
from pairform.registry import read_bytes

CONFIGURATION = {64: "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n"}
"""Git configuration, by the length of a commit hash."""
INDEX_BYTES = 1 << 28
"""Largest Git index that is read; the Linux kernel's takes about 9 MB."""
SECONDS = 30
"""Timeout for Git: a repository may contain named pipes, on which reading blocks."""
PACKAGES = ("torch", "numpy", "pydantic", "tokenizers")


def environment(source: Path, command: list[str]) -> dict[str, Any]:
    """Versions, the machine, the commit of the repository that holds the study's file, and the command that ran it."""
    return {
        "versions": {"python": platform.python_version(), "pairform": pairform.__version__}
        | {name: found for name in PACKAGES if (found := package_version(name))},
        "machine": machine(),
        "commit": commit(source),
        "command": shlex.join(command),
    }


def package_version(package: str) -> str | None:
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
    """Hash of the commit checked out in the repository of `folder`, followed by "+" if tracked files differ from it.

    A repository's configuration can name programs to run (filters, a file monitor). Files are therefore compared under our own
    configuration: a temporary Git directory with the repository's objects and index. None if there is no repository.
    """
    try:
        queries = ("--show-toplevel", "--git-path", "objects", "--git-path", "index", "HEAD")
        found = git("-c", "safe.bareRepository=explicit", "-C", str(folder), "rev-parse", "--path-format=absolute", *queries)
        top, objects, index, head = found.splitlines()
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            # the least that Git takes for a repository: two folders, HEAD and the configuration
            for part in ("objects", "refs"):
                (directory / part).mkdir()
            (directory / "HEAD").write_text(f"{head}\n", "utf-8")
            (directory / "config").write_text(CONFIGURATION.get(len(head), ""), "utf-8")
            times = Path(index).stat()  # Git rereads files that changed in the second in which the index was written
            (directory / "index").write_bytes(read_bytes(index, INDEX_BYTES))
            os.utime(directory / "index", ns=(times.st_atime_ns, times.st_mtime_ns))
            places = ("-c", "core.fsmonitor=false", f"--git-dir={directory}", f"--work-tree={top}")
            command = ("diff", "--name-only", "--ignore-submodules=all", "--no-ext-diff", "--no-textconv", head, "--")
            changed = git(*places, *command, GIT_OBJECT_DIRECTORY=objects)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return head + "+" if changed else head


def git(*arguments: str, **variables: str) -> str:
    """Output of a Git command. `GIT_...` variables of the environment are ignored: they may name another repository."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | variables
    command = ["git", *arguments]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=SECONDS
    )
    return done.stdout.strip()
