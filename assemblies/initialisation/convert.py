"""Plan and write in one call."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.hub import local_folder
from pairform.assemblies.checkpoints.save import Format
from pairform.assemblies.checkpoints.writing.folder import check_target
from pairform.assemblies.checkpoints.writing.tensor_stream import Progress, silent
from pairform.assemblies.initialisation.execute import execute
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.plan import Plan
from pairform.assemblies.initialisation.planning import Ref, plan


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` did."""

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
    """Initialise a new model from `encoder`, `decoder` and `vision` checkpoints and write it to `out`.

    Arguments up to `revisions`, and `fields`, are those of `plan`; `format` is "pairform" or "transformers".
    """
    begin = time.perf_counter()
    refs = {"encoder": encoder, "decoder": decoder, "vision": vision}
    check_target(out, overwrite, tuple(folder for ref in refs.values() if (folder := local_folder(ref)) is not None))
    made = plan(**refs, spec=spec, patch=patch, revisions=revisions, options=options, **fields)
    written = execute(made, out, format=format, max_shard_size=max_shard_size, overwrite=overwrite, progress=progress)
    return ConvertReport(Path(out), made, written, time.perf_counter() - begin)
