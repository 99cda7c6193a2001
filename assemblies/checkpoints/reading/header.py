"""The header of a safetensors file: bounded, read once as a stranger's JSON, then checked by the library itself."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pairform.assemblies.checkpoints.reading.identity import Identity, require_same
from pairform.registry import CheckpointError, Problem, open_regular, parse_json
from pairform.registry.files import DOCUMENT_BYTES

POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that Git LFS leaves in a file's place until it has fetched the file."""


def read_header(file: Path) -> tuple[dict[str, dict[str, Any]], int, Identity]:
    """Each tensor's entry by its name, where the tensors' bytes begin, and which file this holds for.

    The library checks the entries against the file's size. It opens the file by its path, so the path is checked after it.
    """
    with readable(file):
        with open_regular(file) as raw:
            identity = Identity.of(os.fstat(raw.fileno()))
            start = raw.read(len(POINTER))
            if start == POINTER:
                remedy = "Fetch the file itself: git lfs pull, or huggingface_hub.snapshot_download."
                raise CheckpointError(Problem(str(file), "a Git LFS pointer", "the weights that it stands for", remedy))
            length = int.from_bytes(start[:8], "little")
            if length > DOCUMENT_BYTES:
                raise EOFError(f"a header of {length:,} bytes, more than the limit of {DOCUMENT_BYTES:,}")
            raw.seek(8)
            text = raw.read(length)
        header = parse_json(text.decode("utf-8"))
        with safe_open(file, "pt") as opened:
            names = sorted(opened.keys())
        require_same(file, identity, Identity.of(file.stat()))
    return {name: header[name] for name in names}, 8 + length, identity


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """What goes wrong while a safetensors file is read is the file's fault."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(Problem(str(file), error.strerror or str(error), "a safetensors file")) from None
    except (SafetensorError, EOFError, ValueError, RecursionError) as error:
        remedy = "The file is truncated or damaged: fetch or write it again."
        raise CheckpointError(Problem(str(file), f"{error}", "a whole safetensors file", remedy)) from None
