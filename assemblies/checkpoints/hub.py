"""Where a checkpoint is: a folder on disk, or a repository on the Hugging Face hub."""

import re
from pathlib import Path

from pairform.registry import CheckpointError, Problem

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
WANTED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


def find_folder(ref: str | Path, revision: str | None = None) -> Path:
    """The folder that `ref` names; a hub id is downloaded, or taken from the cache when the hub cannot be reached."""
    folder = Path(ref).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(Problem(str(ref), f"the revision {revision!r} for a folder", "a hub id beside a revision"))
        return folder
    if folder.exists():
        raise CheckpointError(Problem(str(ref), "a file", "the folder that holds it, or a hub id owner/name"))
    if isinstance(ref, Path) or not REPOSITORY.fullmatch(ref):
        raise CheckpointError(Problem(str(ref), "no such folder", "a folder, or a hub id owner/name"))
    return download(ref, revision)


def download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=WANTED))
    except LocalEntryNotFoundError:
        remedy = "Check the name and the connection, or download it first."
        raise CheckpointError(Problem(repository, "no such folder, and no such hub repository in reach or cached", "one of them", remedy)) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        at = f" at {revision!r}" if revision else ""
        raise CheckpointError(Problem(repository, f"{str(error).strip().splitlines()[0]}", f"a hub repository in reach{at}")) from None
