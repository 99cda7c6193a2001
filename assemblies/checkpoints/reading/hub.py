"""Finding a checkpoint: a folder on disk, or a repository on the Hugging Face hub."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from pairform.registry import PATH, CheckpointError, Problem, shorten

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# no pickles, which could run code and are not read
WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
CONFIGURATION = ("*.json",)
KNOWN = "a folder, or a hub id owner/name"


def find_folder(ref: str | Path, revision: str | None = None, wanted: Sequence[str] = WANTED) -> Path:
    """The folder that `ref` names. Of a hub id, the `wanted` files are downloaded, or taken from the cache if the hub cannot be
    reached."""
    if not isinstance(ref, str | Path) or ref == "":
        raise CheckpointError(Problem("", shorten(ref), KNOWN))
    try:
        folder = Path(ref).expanduser()
        folder.stat()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the home folder of no user
        if isinstance(ref, str) and REPOSITORY.fullmatch(ref):
            return download(ref, revision, wanted)
        found = "no such folder" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise CheckpointError(Problem(shorten(str(ref), PATH), found, KNOWN)) from None
    if not folder.is_dir():
        raise CheckpointError(Problem(str(ref), "a file", f"the folder that holds it, or {KNOWN}"))
    if revision is not None:
        raise CheckpointError(Problem(str(ref), f"the revision {revision!r} for a folder", "a hub id beside a revision"))
    return folder


def local_folder(ref: object) -> Path | None:
    """The folder on disk that `ref` names, if any, without asking the hub."""
    if isinstance(ref, str | Path) and ref != "":
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            folder = Path(ref).expanduser()
            return folder if folder.is_dir() else None
    return None


def download(repository: str, revision: str | None, wanted: Sequence[str] = WANTED) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    at = f" at {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(wanted)))
    except LocalEntryNotFoundError:
        found = f"no such folder, and no such hub repository{at} in reach or cached"
        remedy = "Check the name and the connection, or download it first."
        raise CheckpointError(Problem(repository, found, "one of them", remedy)) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        found = str(error).strip().splitlines()[0]
        raise CheckpointError(Problem(repository, found, f"a hub repository in reach{at}")) from None
