"""One stack of a checkpoint as a model of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pairform.assemblies.checkpoints.export import copies
from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.model_folder import OURS
from pairform.assemblies.checkpoints.writing.companions import companions
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.depth_dependent import Move, with_moved_values
from pairform.assemblies.specs.layer_patches import layers_of, with_layer_patches
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
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
    revision: str | None = None,
) -> int:
    """Write one stack of a checkpoint as a model of its own.

    An encoder is written without a head, with its vision tower. A decoder is written with its head and without its attention to
    the encoder: as if cross-attention returned zeros, and merged attention, which becomes self-attention, had no source tokens.
    Tensors are the same bytes, and the stack computes the same: values that depended on the other stack are written into its
    spec. All changes of the spec are listed in `edits` of the provenance.

    In transformers' format, an encoder that has no class of its own there is written as a bidirectional model of its family
    if that has such models, as Gemma 3 has.

    Args:
        part: the stack.
        path_or_repo, out, format, max_shard_size, overwrite, progress, revision: as for `export`.

    Returns:
        The number of bytes of the weights.

    Raises:
        InputError: the model has no such stack.
        CheckpointError, SpecError: as for `export`.
        OutputError: the stack cannot be used alone, or `out` cannot be written.
    """
    checkpoint = open_checkpoint(path_or_repo, revision=revision)
    spec = part_spec(checkpoint.spec, part)
    entries = copies(checkpoint, parameters_of(spec))
    if format != OURS:
        spec = as_written(spec)
        entries = [replace(entry, name=entry.name.replace(f"{part}.", f"{next(iter(spec.stacks))}.", 1)) for entry in entries]
    changed = difference(checkpoint.spec.stacks[part].document(), spec.last.document(), part)
    edits = [{"path": path, "before": before, "after": after} for path, (before, after) in changed.items()]
    provenance = {"origin": "extract", "source": str(path_or_repo), "part": part, "edits": edits}
    output = Output(out, format, max_shard_size, overwrite, progress)
    return output.write(spec, entries, provenance, companions({part: checkpoint}))


def as_written(spec: ModelSpec) -> ModelSpec:
    """The form in which transformers can express a model of one stack that computes the same of token IDs: `spec` itself if
    possible, or if no form is.

    An encoder that has no class of its own may be a bidirectional model of its family, whose one stack is our decoder.
    """
    part, stack = next(iter(spec.stacks.items()))
    # of pairs, whose stacks scale `inputs_embeds` as T5Gemma's do; models of one stack do not
    embedding = {field: value for field, value in stack.document()["embedding"].items() if field != "scale_given"}
    given = stack.document() | {"embedding": embedding}
    document = spec.document() | {"encoder": None, "decoder": None}
    unscaled = ModelSpec.read(document | {part: given})
    alone = ModelSpec.read(document | {"assembly": "decoder_only", "decoder": given})
    return next((form for form in (spec, unscaled, alone) if expressible(form)), spec)


def expressible(spec: ModelSpec) -> bool:
    """Whether transformers can express a spec."""
    try:
        family_of_spec(spec)
    except SpecError:
        return False
    return True


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
    stack = {field: value for field, value in whole[part].items() if field not in ("vocabulary", "tokens")}
    # values such as DeepNorm's alpha depend on the depth of the other stack; the layers keep those that they were trained with
    unmoved = Move(spec, part, tuple(range(spec.stacks[part].depth)))
    try:
        document = {field: value for field, value in whole.items() if field not in both} | {
            "assembly": f"{part}_only",
            "vocabulary": spec.vocabulary_of(part),
            "tokens": spec.tokens_of(part).document(),
            part: without_source(stack) if part == "decoder" else stack,
            # the shared table was the encoder's; now it is this stack's own
            "head": head | ({"tie": part} if spec.tie_embeddings and head.get("tie") else {}),
        }
        return with_moved_values(ModelSpec.read(document), {part: unmoved})
    except SpecError as error:
        found = f"a {part} that cannot be used alone ({error.problems[0]})"
        raise OutputError(Problem("part", found, "a stack that reads no other")) from None


def without_source(stack: dict[str, Any]) -> dict[str, Any]:
    """A decoder's document with no attention to an encoder."""
    return with_layer_patches(stack, [without_source_patch(layer) for layer in layers_of(stack)])


def without_source_patch(layer: LayerSpec) -> dict[str, Any]:
    """The patch that removes a layer's cross-attention and makes its merged attention self-attention."""
    crossing = {name for name, branch in layer.branches.items() if branch.name == "cross_attention"}
    merged = {name for name, branch in layer.branches.items() if branch.name == "merged_attention"}
    if not crossing and not merged:
        return {}
    groups = [[name for name in group if name not in crossing] for group in layer.parallel_groups]
    order = [group if len(group) > 1 else group[0] for group in groups if group]
    changed = dict.fromkeys(crossing) | {name: {"name": "self_attention"} for name in merged}
    return {"order": order, "branches": changed} if crossing else {"branches": changed}
