"""Finding a checkpoint: a folder on disk, or a repository on the Hugging Face hub."""

import contextlib
import re
from pathlib import Path

from pairform.assemblies.checkpoints.reading.file_names import (
    CARD,
    COMPANIONS,
    ENCODER_COMPANIONS,
    NOTICES,
    OTHERS,
    PROVENANCE,
    SENTENCE_SETTINGS,
)
from pairform.assemblies.checkpoints.reading.hub_errors import Repository, hub_errors
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC
from pairform.assemblies.checkpoints.reading.sentence_modules import MODULES, module_folders
from pairform.assemblies.checkpoints.reading.weights import INDEX, SINGLE, read_weight_map
from pairform.assemblies.families.tokens import GENERATION
from pairform.registry import PATH, CheckpointError, Problem, shorten

REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
REPOSITORY = re.compile(rf"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>{REVISION.pattern}))?", re.ASCII)
"""A hub id, which may say at which branch, tag or commit: `owner/name@revision`."""
# names, not patterns, which would match in subfolders too; no pickles, which could run code and are not read
CONFIGURATION = (SPEC, CONFIG, GENERATION, INDEX, MODULES, *SENTENCE_SETTINGS, PROVENANCE, CARD)
BESIDE = (*COMPANIONS, *ENCODER_COMPANIONS, *OTHERS, *NOTICES)
KNOWN = "a folder, or a hub id owner/name or owner/name@revision"


def find_folder(ref: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder that `ref` names. The files of a hub id are downloaded, or taken from the cache if the hub cannot be reached.

    revision: of a hub id that does not say it itself.
    weights:  whether weights and tokenizers are needed, or configurations alone.
    """
    if not isinstance(ref, str | Path) or ref == "":
        raise CheckpointError(Problem("", "an empty path" if ref == "" else shorten(ref), KNOWN))
    try:
        folder = Path(ref).expanduser()
        folder.stat()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the home folder of no user
        if is_remote(ref):
            return download(repository(ref, revision), weights=weights)
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


def is_remote(ref: object, folder: Path = Path()) -> bool:
    """Whether a name can only be a hub id: there is no file or folder of that name, relative to `folder`."""
    if not isinstance(ref, str) or REPOSITORY.fullmatch(ref) is None or ref.endswith(".json"):
        return False
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        return not (folder / Path(ref).expanduser()).exists()
    return False


def repository(ref: object, revision: str | None = None) -> Repository:
    """The repository that a hub id names.

    Raises:
        CheckpointError: it is none, or the id and `revision` differ.
    """
    found = REPOSITORY.fullmatch(ref) if isinstance(ref, str) else None
    if found is None:
        raise CheckpointError(Problem("", shorten(ref), "a hub id: owner/name, or owner/name@revision"))
    if revision is not None and (not isinstance(revision, str) or not REVISION.fullmatch(revision)):
        raise CheckpointError(Problem(shorten(ref, PATH), f"the revision {shorten(revision)}", "a branch, tag or commit"))
    if revision is not None and found["revision"] not in (None, revision):
        where = shorten(ref, PATH)
        raise CheckpointError(Problem(where, f"the revision {shorten(revision)} beside it", "one revision of a hub id"))
    return Repository(found["name"], found["revision"] if revision is None else revision)


def download(source: Repository, *, weights: bool = True) -> Path:
    """The snapshot of a repository in the hub's cache, with the files that a model needs and no others."""
    from huggingface_hub import snapshot_download

    wanted = [*CONFIGURATION, *(BESIDE if weights else ())]
    with hub_errors(source):
        folder = Path(snapshot_download(source.name, revision=source.revision, allow_patterns=wanted))
    if later := [*module_files(folder), *(weight_files(folder) if weights else ())]:
        with hub_errors(source, cached=True):
            # at the commit that was just found, whatever the branch is by now
            snapshot_download(source.name, revision=folder.name, allow_patterns=later)
    return folder


def module_files(folder: Path) -> list[str]:
    """The files of sentence-transformers' modules, which say what head a model has; their weights are small."""
    return [f"{module}/{name}" for module in module_folders(folder) for name in (CONFIG, SINGLE)]


def weight_files(folder: Path) -> list[str]:
    """Patterns of the weight files of a snapshot whose other files are there."""
    names = {SINGLE}
    if (folder / INDEX).exists():
        with contextlib.suppress(CheckpointError):  # reported when the folder is read
            names |= {name for name in map(str, read_weight_map(folder / INDEX).values()) if name.endswith(".safetensors")}
    return [re.sub(r"[*?[]", r"[\g<0>]", name) for name in sorted(names) if Path(name).name == name]


def source_repository(folder: Path) -> Repository | None:
    """The repository and commit of a snapshot in the hub's cache; None for any other folder."""
    home = folder.parent.parent
    if folder.parent.name != "snapshots" or not home.name.startswith("models--"):
        return None
    return Repository(home.name.removeprefix("models--").replace("--", "/", 1), folder.name)
