"""Folders for other programs: written whole or not at all, with a record of their files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.checkpoints.writing.companions import companions
from pairform.assemblies.checkpoints.writing.contents import EXPORTED, PROVENANCE, digests_below
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Entry, write_json
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, not_installed, read_json

Tell = Callable[[str], object]
"""Called with a sentence that the user should read: a bound, a measured difference."""


def unheard(sentence: str) -> None:
    """Tell nobody."""


def check_installed(extra: str, *packages: str) -> None:
    """Raise `InputError` if one of the packages that an extra of pairform installs is missing."""
    for name in packages:
        try:
            import_module(name)
        except ModuleNotFoundError:
            raise InputError(not_installed("export", name, extra)) from None


@contextmanager
def runtime_folder(
    out: str | Path, name: str, checkpoint: Checkpoint, *, overwrite: bool = False, copies: int = 1
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to write a model into for another program, and a document to which fields of its record can be added.

    Args:
        name: the format's, for the record.
        checkpoint: the model's source.
        overwrite: replace a model in `out`.
        copies: how many times the size of the weights is needed on the disk.
    """
    size = copies * sum(tensor.nbytes for tensor in checkpoint.files.tensors.values())
    with new_folder(out, overwrite=overwrite, sources=(checkpoint.folder,), size=size) as folder:
        record: dict[str, Any] = {}
        yield folder, record
        path = folder / PROVENANCE
        of_weights = read_json(path) if path.exists() else {}
        made = {"origin": "export", "source": str(checkpoint.folder), "format": name}
        write_json(path, of_weights | made | record | {EXPORTED: digests_below(folder)})


def write_model(folder: Path, checkpoint: Checkpoint, spec: ModelSpec, entries: Sequence[Entry], output: Output) -> int:
    """Write a model with its tokenizer as the content of a folder that exists; returns the number of bytes of its weights.

    output: how; its path is a new folder below `folder`, which is gone afterwards.
    """
    size = output.write(spec, entries, {"origin": "export"}, companions({"model": checkpoint}))
    for path in Path(output.path).iterdir():
        path.rename(folder / path.name)
    Path(output.path).rmdir()
    return size
