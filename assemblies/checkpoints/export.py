"""Copying checkpoints tensor by tensor into another format."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.writing.companions import (
    companions,
)
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Entry, Progress, silent

Part = Literal["encoder", "decoder"]


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    format: Format = "transformers",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
    revision: str | None = None,
) -> int:
    """Write a checkpoint in another format. The tensors are the same bytes; memory does not grow with the model.

    Args:
        path_or_repo: a folder, or a hub id `owner/name` or `owner/name@revision`.
        out: a new or empty folder; it appears whole or not at all.
        format: "transformers", or "pairform".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `out`.
        progress: called with the bytes just written and the bytes in all.
        revision: of a hub id that does not say it itself.

    Returns:
        The number of bytes of the weights.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        SpecError: the format cannot express the spec.
        OutputError: `out` cannot be written.
    """
    checkpoint = open_checkpoint(path_or_repo, revision=revision)
    provenance = {"origin": "export", "source": str(path_or_repo)}
    output = Output(out, format, max_shard_size, overwrite, progress)
    beside = companions({"model": checkpoint})
    return output.write(checkpoint.spec, copies(checkpoint, checkpoint.tensors), provenance, beside)


def copies(checkpoint: Checkpoint, names: Iterable[str]) -> list[Entry]:
    """Unchanged tensors of a checkpoint, by the names to write."""
    return [Entry.copy(name, checkpoint.tensors[checkpoint.stored_name(name)]) for name in names]
