"""One stack of a model, as a model of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pairform.assemblies.build import parameters_of
from pairform.assemblies.checkpoints.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.companions import ENCODER_TOKENIZER, Companion, companions, encoder_companions
from pairform.assemblies.checkpoints.export import copied
from pairform.assemblies.checkpoints.saving import Format, write_model
from pairform.assemblies.checkpoints.sink import Progress, silent
from pairform.assemblies.moving import Move, settled
from pairform.assemblies.specs import ModelSpec
from pairform.registry import InputError, OutputError, Problem, SpecError, difference, shorten

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
    bytes, and the stack computes the same: what depended on the other stack is in its spec, and in `edits` of the provenance.
    """
    checkpoint = open_checkpoint(path_or_repo)
    spec = part_spec(checkpoint.spec, part)
    names = list(parameters_of(spec))
    beside = own_companions(checkpoint.folder, part)
    with copied(checkpoint, spec, names, beside, out, format, overwrite) as (folder, entries):
        changed = difference(checkpoint.spec.stacks[part].document(), spec.stacks[part].document(), part)
        edits = [{"path": path, "before": before, "after": after} for path, (before, after) in changed.items()]
        provenance = {"origin": "extract", "source": str(path_or_repo), "part": part, "edits": edits}
        write_model(folder, spec, entries, format, provenance, max_shard_size=max_shard_size, progress=progress)
    return sum(entry.size for entry in entries)


def own_companions(folder: Path, part: str) -> list[Companion]:
    """The companions of a stack: an encoder may have another tokenizer than the decoder."""
    own = encoder_companions(folder) if part == "encoder" else []
    alone = [replace(each, name=each.name.removeprefix(f"{ENCODER_TOKENIZER}/")) for each in own]
    return alone or companions({part: folder})


def part_spec(spec: ModelSpec, part: str) -> ModelSpec:
    """The spec of one stack alone."""
    if not isinstance(part, str) or part not in ("encoder", "decoder"):
        raise InputError(Problem("part", shorten(part), "encoder or decoder"))
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
    document["tokens"] = spec.tokens_of(part).document()
    document[part] = {key: value for key, value in spec.stacks[part].document().items() if key not in ("vocabulary", "tokens")}
    stay = Move(spec, part, tuple(range(spec.stacks[part].depth)))
    try:
        return settled(ModelSpec.read(document), {part: stay})
    except SpecError as error:
        found = f"a {part} that cannot stand alone ({error.problems[0]})"
        raise OutputError(Problem("part", found, "a stack that reads no other")) from None
