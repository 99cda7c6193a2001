"""Where a study was run, and how to run it again."""

import os
import platform
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies import processor

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
    """The commit that is checked out around `folder`; with "+" behind it where tracked files differ from it."""
    try:
        found, changed = (
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + "+" if changed else found
