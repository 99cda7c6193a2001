"""The command that builds a model again by another spec."""

from pathlib import Path
from typing import Annotated

import typer

from pairform.cli.options import Folder, Json, Overwrite, Rows, Seed, Settings, ShardSize, parse_set, print_json


def carry(
    directory: Folder,
    spec: Annotated[
        str | None, typer.Option("--spec", metavar="SPEC", help="Architecture to make; by default, DIR's own.")
    ] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write; by default, only show the plan.")
    ] = None,
    seed: Seed = 0,
    max_shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
    rows: Rows = False,
    as_json: Json = False,
) -> None:
    """Rebuild a model with another spec, keeping the weights that fit."""
    from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
    from pairform.assemblies.initialisation.carry import plan_carry
    from pairform.assemblies.initialisation.execute import execute
    from pairform.cli.display.plan import print_plan
    from pairform.cli.display.printing import byte_progress, print_totals

    made = plan_carry(open_checkpoint(directory), spec, patch=parse_set(settings), seed=seed, path=directory)
    if out is None:
        if as_json:
            print_json(made.document() | {"totals": made.totals})
        else:
            print_plan(made, rows=rows)
        return
    with byte_progress(shown=not as_json) as progress:
        written = execute(made, out, max_shard_size=max_shard_size, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"out": str(out), "bytes": written, "totals": made.totals})
    else:
        print_totals(made)
        print(f"{out}: {written:,} bytes of weights")
