"""From one format to another, as a stream of bytes."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.save import Format, check_format, write_model
from pairform.assemblies.checkpoints.writing.companions import Companion, all_companions, copy_companions
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.checkpoints.writing.shards import Entry
from pairform.assemblies.checkpoints.writing.tensor_stream import CopiedContent, Progress, silent
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.specs.model import ModelSpec


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    format: Format = "transformers",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write the model in `path_or_repo` to `out` in another format and return the number of bytes of its weights.

    The tensors are the same bytes; memory does not grow with the model.
    """
    checkpoint = open_checkpoint(path_or_repo)
    beside = all_companions(checkpoint.folder)
    with copied(checkpoint, checkpoint.spec, list(checkpoint.tensors), beside, out, format, overwrite) as (folder, entries):
        provenance = {"origin": "export", "source": str(path_or_repo)}
        write_model(folder, checkpoint.spec, entries, format, provenance, max_shard_size=max_shard_size, progress=progress)
    return sum(entry.size for entry in entries)


@contextlib.contextmanager
def copied(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    names: Sequence[str],
    beside: Sequence[Companion],
    out: str | Path,
    format_: Format,
    overwrite: bool,
) -> Iterator[tuple[Path, list[Entry]]]:
    """A new folder with the companions `beside`, and the tensors `names` of a checkpoint ready to be written unchanged."""
    check_format(format_)
    if format_ == "transformers":
        family_of_spec(spec)  # say what cannot be said before anything is written
    stored = {name: checkpoint.tensors[checkpoint.stored_name(name)] for name in names}
    entries = [Entry(name, tensor.dtype, tensor.shape, CopiedContent(tensor)) for name, tensor in stored.items()]
    size = sum(entry.size for entry in entries) + sum(each.size for each in beside)
    with new_folder(out, overwrite=overwrite, sources=(checkpoint.folder,), size=size) as folder:
        copy_companions(folder, beside)
        yield folder, entries
