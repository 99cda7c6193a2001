"""Copying checkpoints tensor by tensor: into another format (`export`), or one stack as a model of its own (`extract`)."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.writing.companions import (
    COMPANIONS,
    ENCODER_COMPANIONS,
    Companions,
    companions,
    present,
)
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Entry, Progress, silent
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.depth_dependent import Move, with_moved_values
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, OutputError, Problem, SpecError, difference, shorten

Part = Literal["encoder", "decoder"]


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    format: Format = "transformers",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write a checkpoint in another format. The tensors are the same bytes; memory does not grow with the model.

    Args:
        path_or_repo: a folder, or a hub id.
        out: a new or empty folder; it appears whole or not at all.
        format: "transformers", or "pairform".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `out`.
        progress: called with the bytes just written and the bytes in all.

    Returns:
        The number of bytes of the weights.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        SpecError: the format cannot express the spec.
        OutputError: `out` cannot be written.
    """
    checkpoint = open_checkpoint(path_or_repo)
    provenance = {"origin": "export", "source": str(path_or_repo)}
    output = Output(out, format, max_shard_size, overwrite, progress)
    beside = companions({"model": checkpoint})
    return output.write(checkpoint.spec, copies(checkpoint, checkpoint.tensors), provenance, beside)


def extract(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    part: Part = "encoder",
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write one stack of a checkpoint as a model of its own.

    An encoder is written without a head, with its vision tower; a decoder with its head, if it has no cross-attention. Tensors
    are the same bytes, and the stack computes the same: values that depended on the other stack are written into its spec, and
    listed in `edits` of the provenance.

    Args:
        part: the stack.
        path_or_repo, out, format, max_shard_size, overwrite, progress: as for `export`.

    Returns:
        The number of bytes of the weights.

    Raises:
        InputError: the model has no such stack.
        CheckpointError, SpecError: as for `export`.
        OutputError: the stack cannot be used alone, or `out` cannot be written.
    """
    checkpoint = open_checkpoint(path_or_repo)
    spec = part_spec(checkpoint.spec, part)
    changed = difference(checkpoint.spec.stacks[part].document(), spec.stacks[part].document(), part)
    edits = [{"path": path, "before": before, "after": after} for path, (before, after) in changed.items()]
    provenance = {"origin": "extract", "source": str(path_or_repo), "part": part, "edits": edits}
    output = Output(out, format, max_shard_size, overwrite, progress)
    beside = stack_companions(checkpoint, part)
    return output.write(spec, copies(checkpoint, parameters_of(spec)), provenance, beside)


def copies(checkpoint: Checkpoint, names: Iterable[str]) -> list[Entry]:
    """Unchanged tensors of a checkpoint, by the names to write."""
    return [Entry.copy(name, checkpoint.tensors[checkpoint.stored_name(name)]) for name in names]


def stack_companions(checkpoint: Checkpoint, part: str) -> Companions:
    """The companions of a stack: an encoder may have a tokenizer of its own."""
    found = companions({part: checkpoint})
    own = present(checkpoint.folder, dict(zip(ENCODER_COMPANIONS, COMPANIONS, strict=True))) if part == "encoder" else []
    return replace(found, files=tuple(own)) if own else found


def part_spec(spec: ModelSpec, part: str) -> ModelSpec:
    """The spec of one stack alone."""
    if not isinstance(part, str) or part not in ("encoder", "decoder"):
        raise InputError(Problem("part", shorten(part), "encoder or decoder"))
    if part not in spec.stacks:
        raise InputError(Problem("part", repr(part), f"a stack of the model: {', '.join(spec.stacks)}"))
    last = part == list(spec.stacks)[-1]
    head = spec.head.document() if last else {"name": "none"}
    whole = spec.document()
    both = ("encoder", "decoder", "bridge", "tie_embeddings")
    document = {field: value for field, value in whole.items() if field not in both} | {
        "assembly": f"{part}_only",
        "vocabulary": spec.vocabulary_of(part),
        "tokens": spec.tokens_of(part).document(),
        part: {field: value for field, value in whole[part].items() if field not in ("vocabulary", "tokens")},
        # the shared table was the encoder's; now it is this stack's own
        "head": head | ({"tie": part} if spec.tie_embeddings and head.get("tie") else {}),
    }
    # values such as DeepNorm's alpha depend on the depth of the other stack; the layers keep those that they were trained with
    unmoved = Move(spec, part, tuple(range(spec.stacks[part].depth)))
    try:
        return with_moved_values(ModelSpec.read(document), {part: unmoved})
    except SpecError as error:
        found = f"a {part} that cannot be used alone ({error.problems[0]})"
        raise OutputError(Problem("part", found, "a stack that reads no other")) from None
