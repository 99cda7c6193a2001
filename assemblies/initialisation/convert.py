"""Plan and write in one call, with the sources opened once."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.hub import local_folder
from pairform.assemblies.checkpoints.reading.load_spec import Ref
from pairform.assemblies.checkpoints.writing.folder import check_target
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.assemblies.initialisation.execute import write_plan
from pairform.assemblies.initialisation.options import Options, read_options
from pairform.assemblies.initialisation.plan import Plan, Role
from pairform.assemblies.initialisation.planning import open_sources, plan_of


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
