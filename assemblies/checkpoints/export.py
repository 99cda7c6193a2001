"""From one format to another, as a stream of bytes."""

from pathlib import Path

from pairform.assemblies.checkpoints.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.companions import copy_all_companions
from pairform.assemblies.checkpoints.folder import new_folder
from pairform.assemblies.checkpoints.saving import Format, write_model
from pairform.assemblies.checkpoints.sink import CopiedContent, Progress, silent
from pairform.assemblies.checkpoints.writer import Entry
from pairform.assemblies.families import family_of_spec


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
    if format == "transformers":
        family_of_spec(checkpoint.spec)  # say what cannot be said before anything is written
    entries = [Entry(name, tensor.dtype, tensor.shape, CopiedContent(tensor)) for name, tensor in checkpoint.tensors.items()]
    size = sum(entry.size for entry in entries)
    with new_folder(out, overwrite=overwrite, sources=(checkpoint.folder,), size=size) as folder:
        copy_all_companions(folder, checkpoint.folder)
        provenance = {"origin": "export", "source": str(path_or_repo)}
        write_model(folder, checkpoint.spec, entries, format, provenance, max_shard_size=max_shard_size, progress=progress)
    return size
