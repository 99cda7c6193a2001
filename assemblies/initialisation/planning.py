"""Making a plan from sources and a spec, with no tensor read."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.hub import is_remote, local_folder, repository
from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.initialisation.options import Options, dtype_name, read_options
from pairform.assemblies.initialisation.pairing.compatibility import CROSS
from pairform.assemblies.initialisation.pairing.pair import move, pair
from pairform.assemblies.initialisation.plan import NewVocabulary, Plan, Role, Source, SourceFolder, SourceRow, TargetRow
from pairform.assemblies.initialisation.rules.cross_attention import DecoderRules, advice
from pairform.assemblies.initialisation.rules.edits import dtype_edits, edits
from pairform.assemblies.initialisation.rules.stacks import PARTS, Part, Planned, StackRules, Target, head_rule
from pairform.assemblies.initialisation.rules.vision import bridge_rule, check_vision, vision_rule
from pairform.assemblies.initialisation.rules.vocabulary import in_vocabulary, new_vocabularies
from pairform.assemblies.initialisation.vocabulary.change import with_vocabulary
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.depth_dependent import Move, with_moved_values
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError, shorten


def plan(
    *,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    vision: str | Path | None = None,
    spec: Ref | None = None,
    patch: Mapping[str, Any] | None = None,
    revisions: Mapping[str, str] | None = None,
    options: Options | None = None,
    **fields: Any,
) -> Plan:
    """Plan the initialisation of a new model from checkpoints. Only their headers are read.

    Args:
        encoder, decoder: the sources of the stacks: folders, or hub ids.
        vision: a third source, of which the vision tower and its projector are taken for the encoder.
        spec: the model to make, as for `load_spec`. By default the pair of the two sources: like T5Gemma 2 for two Gemma 3
            models, else like T5Gemma.
        patch: a JSON merge patch on it.
        revisions: of sources on the hub: role -> branch, tag or commit.
        options: an `Options`.
        fields: fields of `Options` as keywords, in place of those of `options`.

    Returns:
        The plan, which `execute` carries out.

    Raises:
        SpecError: an argument is invalid, or the sources do not fit the spec.
        CheckpointError: a source cannot be read.
    """
    read = read_options(options, fields)
    refs: dict[Role, str | Path | None] = {"encoder": encoder, "decoder": decoder, "vision": vision}
    return plan_of(open_sources(refs, revisions), refs, spec, patch, read)


def open_sources(refs: Mapping[Role, str | Path | None], revisions: Mapping[str, str] | None) -> dict[Role, Checkpoint]:
    """Open the sources that are given, each once."""
    if revisions is not None and not isinstance(revisions, Mapping):
        raise SpecError(Problem("revisions", shorten(revisions), "an object: source -> revision"))
    if unknown := [role for role in revisions or {} if role not in refs]:
        raise SpecError(Problem(f"revisions.{unknown[0]}", "no such source", f"one of {', '.join(refs)}"))
    opened: dict[tuple[str, str | None], Checkpoint] = {}
    sources: dict[Role, Checkpoint] = {}
    for role, ref in refs.items():
        if ref is not None:
            key = str(ref), (revisions or {}).get(role)
            sources[role] = opened[key] = opened.get(key) or open_checkpoint(ref, revision=key[1])
    return sources


def plan_of(
    sources: dict[Role, Checkpoint],
    refs: Mapping[Role, str | Path | None],
    spec: Ref | None,
    patch: Mapping[str, Any] | None,
    options: Options,
) -> Plan:
    """As `plan`, from open checkpoints by their roles."""
    changes = new_vocabularies(sources, options)
    specs = {
        role: with_vocabulary(source, changes[role]) if role in changes else source.spec for role, source in sources.items()
    }
    target, moves = target_of(specs, spec, patch, options)
    rules = {
        part: (DecoderRules if part == "decoder" else StackRules)(part, part, target, sources[part], each, options)
        for part, each in moves.items()
    }
    if problems := [*(problem for rule in rules.values() for problem in rule.check()), *check_vision(target, sources)]:
        raise SpecError(problems)
    made = plan_by(rules, sources, refs, changes)
    decoder = rules.get("decoder")
    if not isinstance(decoder, DecoderRules) or "encoder" not in sources:
        return made
    return made.model_copy(update={"notes": tuple(advice(decoder, sources["encoder"], made.targets))})


def target_of(
    specs: Mapping[Role, ModelSpec], spec: Ref | None, patch: Mapping[str, Any] | None, options: Options
) -> tuple[ModelSpec, dict[Part, Move]]:
    """The spec of the model to make of sources with these specs, and the origin of each stack's layers."""
    target = load_spec(target_ref(specs, spec, options), patch)
    # every stack needs a source, and every source a stack
    if missing := [part for part in target.stacks if part not in specs]:
        raise SpecError(
            Problem(missing[0], "no source", f"a checkpoint for each stack of the spec: {', '.join(target.stacks)}")
        )
    has = [*target.stacks] + (["vision"] if any(stack.vision is not None for stack in target.stacks.values()) else [])
    if spare := [role for role in specs if role not in has]:
        raise SpecError(Problem(spare[0], "a source", f"none: the spec has only {', '.join(has)}"))
    moves = {part: move(specs[part], part, options) for part in PARTS if part in specs}
    # values that depend on a layer's number stay those of its source
    return with_moved_values(target, moves), moves


def plan_by(
    rules: Mapping[Part, StackRules],
    sources: Mapping[Role, Checkpoint],
    refs: Mapping[Role, object],
    vocabularies: Mapping[Role, NewVocabulary] | None = None,
) -> Plan:
    """The plan that the rules of each stack make. refs: where `execute` finds the sources."""
    last = [*rules.values()][-1]
    changes = vocabularies or {}
    targets = tuple(in_vocabulary(row, last.target, changes) for row in target_rows(rules, sources))
    folders = {
        role: SourceFolder(
            path=name_of(refs[role]),
            revision=commit(refs[role], checkpoint),
            layers=next((rule.layers for rule in rules.values() if rule.role == role != "model"), ()),
        )
        for role, checkpoint in sources.items()
    }
    return Plan(
        spec=last.target,
        options=last.options,
        sources=folders,
        targets=targets,
        origins=tuple(row for role in sources for row in source_rows(role, sources[role], [*rules.values()], targets)),
        edits=(*edits(rules), *dtype_edits(sources, targets)),
        vocabularies=dict(changes),
    )


def name_of(ref: object) -> str:
    """How `execute` finds a source: a hub id without its revision, which is recorded as a commit."""
    return repository(ref).name if is_remote(ref) else str(ref)


def commit(ref: object, checkpoint: Checkpoint) -> str | None:
    """The commit of a source on the hub, so that the plan stays reproducible; None for a folder and in memory."""
    folder = checkpoint.folder
    return folder.name if folder.parent.name == "snapshots" and local_folder(ref) is None else None


def target_ref(specs: Mapping[Role, ModelSpec], spec: Ref | None, options: Options) -> Ref:
    """The requested spec, or the pair of the sources, which may need a patch to be valid."""
    if spec is not None:
        return spec
    if "encoder" in specs and "decoder" in specs:
        return pair(specs["encoder"], specs["decoder"], options, specs.get("vision"))
    raise SpecError(Problem("spec", "no spec", "two sources (encoder and decoder), or a spec that says what to make of one"))


def target_rows(rules: Mapping[Part, StackRules], sources: Mapping[Role, Checkpoint]) -> list[TargetRow]:
    """One row for every tensor of the new model, in order."""
    last = [*rules.values()][-1]
    target = last.target
    common = dtype_name(reduce(torch.promote_types, (source.dtype for source in sources.values())))
    rows, problems = [], []
    for name, parameter in parameters_of(target).items():
        wanted = Target(name, parameter.shape, parameter.initial)
        rule = rules.get(name.split(".")[0], None)  # type: ignore[call-overload]
        try:
            if name.split(".")[1] == "vision":
                made: Planned = vision_rule(wanted, sources)
            elif name.startswith("bridge."):
                made = bridge_rule(wanted, target, sources)
            elif rule is None:
                made = head_rule(wanted, last)
            else:
                made = rule.make(wanted)
        except SpecError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        operation, source = made
        dtype = last.options.dtype or common
        rows.append(TargetRow(target=name, shape=wanted.shape, dtype=dtype, operation=operation, source=source))
    if problems:
        raise SpecError(problems[:20])
    return rows


def source_rows(
    role: Role, checkpoint: Checkpoint, rules: Sequence[StackRules], targets: tuple[TargetRow, ...]
) -> Iterator[SourceRow]:
    """One row for every tensor of a source."""
    used: dict[str, list[str]] = {}
    for row in targets:
        if row.source is not None and row.source.role == role:
            used.setdefault(row.source.tensor, []).append(row.target)
    own = [rule for rule in rules if rule.role == role]
    for name, tensor in checkpoint.tensors.items():
        rule = next((rule for rule in own if name.startswith(f"{rule.source_part}.")), own[-1] if own else None)
        dropped = None if name in used else "only the pictures are read as here" if rule is None else drop_reason(rule, name)
        source = Source(role=role, tensor=name)
        yield SourceRow(source=source, shape=tensor.shape, targets=tuple(used.get(name, ())), dropped=dropped)


def drop_reason(rule: StackRules, name: str) -> str:
    """Why a source tensor is not used."""
    part, *rest = name.split(".")
    if part == "head" and rule.part == "encoder" and rule.target.decoder is not None:
        return "an encoder beside a decoder has no head"
    if part == "head":
        return "the new model's head is another, or tied"
    if part != rule.source_part:
        return f"of the source's {part}, which is not used"
    if rest[0] == "vision":
        return "pictures are read in another way, or in the encoder"
    if rest[0] == "embedding" and rule.target.tie_embeddings:
        return "the new model has the encoder's embedding"
    if rest[0] == "layers" and int(rest[1]) not in rule.layers:
        return f"layer {rest[1]} is not kept"
    if rest[0] == "layers" and (branch := rule.kept_layer(int(rest[1])).branches.get(rest[2])) and branch.name == CROSS:
        return "the new model's cross-attention is made in another way"
    return "the new model has no tensor for it"
