"""The commands that check a model's folder, or make another model of it: `verify`, `export`, `extract` and `carry`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pairform.cli.options import (
    Folder,
    Json,
    Out,
    OutFormat,
    Overwrite,
    Rows,
    Seed,
    Settings,
    ShardSize,
    check_format,
    one_of,
    parse_set,
    print_json,
)


def verify(
    directory: Folder,
    digest: Annotated[str | None, typer.Option("--digest", help="Also print each file's digest: sha256.")] = None,
    as_json: Json = False,
) -> None:
    """Check the files of a model's folder.

    Reads every byte: names, shapes, dtypes, checksums, and whether all values are finite.
    """
    if digest is not None:
        one_of(digest, ("sha256",), "--digest")
    from pairform import verify as check
    from pairform.cli.display.printing import byte_progress

    with byte_progress(shown=not as_json) as progress:
        found = check(directory, digest=digest, progress=progress)
    if as_json:
        document: dict[str, Any] = {
            "ok": found.ok,
            "tensors": found.tensors,
            "problems": [str(problem) for problem in found.problems],
        }
        print_json(document | ({"digests": dict(found.digests)} if digest else {}))
    else:
        compared = "checksums compared" if found.checksums else "no provenance to compare checksums with"
        for problem in found.problems:
            print(f"error: {problem}")
        for name, value in found.digests.items():
            print(f"{value}  {name}")
        verdict = "ok" if found.ok else f"{len(found.problems)} problems"
        print(f"{directory}: {verdict} ({found.tensors} tensors, {found.parameters:,} parameters, {compared})")
    if not found.ok:
        raise typer.Exit(1)


def export(
    directory: Folder,
    out: Out,
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="Layout: transformers, pairform; for other programs sentence-transformers, ctranslate2, onnx."
        ),
    ] = "transformers",
    max_shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="Of ctranslate2, as in int8; its difference is measured.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Of ctranslate2: the longest text in tokens, if below the spec's.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="NAME=TEXT", help="Of sentence-transformers: a text before inputs. Repeatable."),
    ] = None,
    default_prompt: Annotated[
        str | None, typer.Option("--default-prompt", help="Of sentence-transformers: the prompt to use if none is named.")
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option("--truncate-dim", help="Of sentence-transformers: keep only so many dimensions.")
    ] = None,
) -> None:
    """Write a model in another layout, or for another program."""
    from pairform import export as run
    from pairform.interop.export import FORMATS

    given: dict[str, Any] = {
        "quantization": quantization,
        "max_length": max_length,
        "prompts": None if prompt is None else dict(map(named_text, prompt)),
        "default_prompt": default_prompt,
        "truncate_dim": truncate_dim,
    }
    options = {name: value for name, value in given.items() if value is not None}
    form = one_of(format_, FORMATS, "--format")
    write(run, directory, out, format=form, max_shard_size=max_shard_size, overwrite=overwrite, tell=print, **options)


def named_text(given: str) -> tuple[str, str]:
    """The name and the text of a --prompt option."""
    name, equals, text = given.partition("=")
    if not name or not equals:
        raise typer.BadParameter("expected NAME=TEXT", param_hint="--prompt")
    return name, text


def extract(
    directory: Folder,
    out: Out,
    part: Annotated[str, typer.Option("--part", help="encoder, or decoder, without its attention to the encoder.")] = "encoder",
    format_: OutFormat = "pairform",
    max_shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
) -> None:
    """Write one stack of a model as a model of its own."""
    from pairform import extract as run

    one_of(part, ("encoder", "decoder"), "--part")
    write(run, directory, out, part=part, format=check_format(format_), max_shard_size=max_shard_size, overwrite=overwrite)


def write(run: Callable[..., int], directory: str, out: Path, **options: Any) -> None:
    """Call `export` or `extract` with a progress bar, and print what was written."""
    from pairform.cli.display.printing import byte_progress

    with byte_progress() as progress:
        written = run(directory, out, progress=progress, **options)
    print(f"{out}: {written:,} bytes of weights")


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
