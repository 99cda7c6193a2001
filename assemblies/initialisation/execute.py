"""Executing a plan: a stream of tensors from the sources to a new folder. `convert` plans and executes in one call."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.hub import local_folder
from pairform.assemblies.checkpoints.reading.load_spec import Ref
from pairform.assemblies.checkpoints.writing.companions import companions
from pairform.assemblies.checkpoints.writing.folder import check_target
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.assemblies.initialisation.entries import entry
from pairform.assemblies.initialisation.options import Options, read_options
from pairform.assemblies.initialisation.plan import Plan, Role
from pairform.assemblies.initialisation.planning import open_sources, plan_of
from pairform.assemblies.initialisation.vocabulary.change import tokenizer_files
from pairform.assemblies.modeling.build import parameters_of
from pairform.registry import InputError, Problem, SpecError, shorten


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` did.

    Attributes:
        out: the new folder.
        plan: where each tensor came from.
        bytes: of the weights.
        seconds: wall-clock time.
    """

    out: Path
    plan: Plan
    bytes: int
    seconds: float


def convert(
    *,
    out: str | Path,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    vision: str | Path | None = None,
    spec: Ref | None = None,
    patch: Mapping[str, Any] | None = None,
    options: Options | None = None,
    revisions: Mapping[str, str] | None = None,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
    **fields: Any,
) -> ConvertReport:
    """Initialise a new model from checkpoints and write it. Memory does not grow with the model.

    Args:
        out: a new or empty folder; it appears whole or not at all.
        encoder, decoder, vision, spec, patch, options, revisions, fields: as for `plan`.
        format: "pairform", or "transformers".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `out`.
        progress: called with the bytes just written and the bytes in all.

    Returns:
        The folder, the plan that was carried out, the bytes written and the time.

    Raises:
        SpecError: as for `plan`, or transformers cannot express the spec.
        CheckpointError: as for `plan`, or values of a source are not finite.
        OutputError: `out` cannot be written.
    """
    begin = time.perf_counter()
    refs: dict[Role, str | Path | None] = {"encoder": encoder, "decoder": decoder, "vision": vision}
    check_target(out, overwrite, tuple(folder for ref in refs.values() if (folder := local_folder(ref)) is not None))
    read = read_options(options, fields)
    sources = open_sources(refs, revisions)
    plan = plan_of(sources, refs, spec, patch, read)
    written = write_plan(plan, sources, Output(out, format, max_shard_size, overwrite, progress))
    return ConvertReport(Path(out), plan, written, time.perf_counter() - begin)


def execute(
    plan: Plan,
    out: str | Path,
    *,
    format: Format = "pairform",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write a planned model. Equal plans and sources give equal tensors, whatever the shard size.

    Args:
        plan: from `plan`, or read from JSON with `Plan.read`. Its sources are opened again.
        out, format, max_shard_size, overwrite, progress: as for `convert`.

    Returns:
        The number of bytes of the weights.

    Raises:
        InputError: `plan` is no plan.
        SpecError: the plan does not make the tensors of its spec, or transformers cannot express the spec.
        CheckpointError: the sources cannot be read, or are not those that the plan was made for.
        OutputError: `out` cannot be written.
    """
    if not isinstance(plan, Plan):
        raise InputError(Problem("plan", shorten(plan), "a plan, as pairform.plan makes it"))
    check_rows(plan)
    checkpoints = {role: open_checkpoint(source.path, revision=source.revision) for role, source in plan.sources.items()}
    return write_plan(plan, checkpoints, Output(out, format, max_shard_size, overwrite, progress))


def write_plan(plan: Plan, checkpoints: Mapping[Role, Checkpoint], output: Output) -> int:
    """As `execute`, from open checkpoints by their roles."""
    vocabularies = {role: change.rows for role, change in plan.vocabularies.items()}
    entries = [entry(row, checkpoints, plan.options.seed, vocabularies) for row in plan.targets]
    made = {role: tokenizer_files(checkpoints[role], change) for role, change in plan.vocabularies.items()}
    return output.write(plan.spec, entries, provenance(plan), companions(checkpoints, made))


def check_rows(plan: Plan) -> None:
    """Check that the rows of a plan, which may have been edited, are still the tensors of its spec."""
    wanted = {name: parameter.shape for name, parameter in parameters_of(plan.spec).items()}
    planned = {row.target: row.shape for row in plan.targets}
    found = [
        Problem(f"plan: {name}", f"the shape {planned.get(name)}", f"{wanted.get(name)}, as in the plan's spec")
        for name in sorted(wanted.keys() | planned.keys())
        if wanted.get(name) != planned.get(name)
    ]
    if len(planned) < len(plan.targets):
        found.append(Problem("plan", "a target twice", "each once"))
    if found:
        raise SpecError(found)


def provenance(plan: Plan) -> dict[str, Any]:
    """The origin of the weights, without anything that differs between equal runs."""
    document = plan.document()
    return {
        "origin": "carry" if "model" in plan.sources else "convert",
        **{field: document[field] for field in ("sources", "options", "targets", "edits", "vocabularies") if field in document},
        "totals": plan.totals,
    }
