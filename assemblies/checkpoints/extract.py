"""One stack of a model, as a model of its own."""

from pathlib import Path
from typing import Any, Literal

from pairform.assemblies.build import skeleton
from pairform.assemblies.checkpoints.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.companions import copy_companions
from pairform.assemblies.checkpoints.folder import new_folder
from pairform.assemblies.checkpoints.saving import Format, write_model
from pairform.assemblies.checkpoints.sink import CopiedContent, Progress, silent
from pairform.assemblies.checkpoints.writer import Entry
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.specs import ModelSpec
from pairform.registry import InputError, OutputError, Problem, SpecError

Part = Literal["encoder", "decoder"]


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
    """Write one stack of the model in `path_or_repo` to `out`, to work alone, and return the number of bytes of its weights.

    An encoder comes without a head, with its pictures; a decoder with its head, if it reads no source. Tensors are the same
    bytes.
    """
    checkpoint = open_checkpoint(path_or_repo)
    spec = part_spec(checkpoint.spec, part)
    if format == "transformers":
        family_of_spec(spec)  # say what cannot be said before anything is written
    entries = list(part_entries(checkpoint, spec, part))
    size = sum(entry.size for entry in entries)
    with new_folder(out, overwrite=overwrite, sources=(checkpoint.folder,), size=size) as folder:
        copy_companions(folder, {part: checkpoint.folder})
        provenance = {"origin": "extract", "source": str(path_or_repo), "part": part}
        write_model(folder, spec, entries, format, provenance, max_shard_size=max_shard_size, progress=progress)
    return size


def part_spec(spec: ModelSpec, part: str) -> ModelSpec:
    """The spec of one stack alone."""
    if part not in ("encoder", "decoder"):
        raise InputError(Problem("part", repr(part), "encoder or decoder"))
    if part not in spec.stacks:
        raise InputError(Problem("part", repr(part), f"a stack of the model: {', '.join(spec.stacks)}"))
    own = part == list(spec.stacks)[-1]
    head = spec.head.document() if own else {"name": "none"}
    document: dict[str, Any] = spec.document() | {
        "assembly": f"{part}_only",
        "vocabulary": spec.vocabulary_of(part),
        "head": head | ({"tie": part} if spec.tie_embeddings and head.get("tie") else {}),
    }
    for field in ("encoder", "decoder", "bridge", "tie_embeddings"):
        document.pop(field, None)
    document[part] = {key: value for key, value in spec.stacks[part].document().items() if key != "vocabulary"}
    try:
        return ModelSpec.read(document)
    except SpecError as error:
        found = f"a {part} that cannot stand alone ({error.problems[0]})"
        raise OutputError(Problem("part", found, "a stack that reads no other")) from None


def part_entries(checkpoint: Checkpoint, spec: ModelSpec, part: str) -> list[Entry]:
    """The tensors of `spec`, from the whole model's; a tied embedding is stored as the encoder's."""
    entries = []
    for name, _ in skeleton(spec).named_parameters():
        stored = checkpoint.tensors.get(name)
        if stored is None:  # tied to the encoder
            stored = checkpoint.tensors[name.replace(f"{part}.embedding.", "encoder.embedding.", 1)]
        entries.append(Entry(name, stored.dtype, stored.shape, CopiedContent(stored)))
    return entries
