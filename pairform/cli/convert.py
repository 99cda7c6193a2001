"""The commands that initialise a model from checkpoints: `plan` and `convert`."""

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any

import typer

from pairform.cli.options import (
    Json,
    Out,
    OutFormat,
    Overwrite,
    Rows,
    Seed,
    Settings,
    ShardSize,
    check_format,
    parse_set,
    print_json,
)


def shared(
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", metavar="SRC", help="Source of the encoder: a folder or hub id, as in owner/name@revision."),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option("--decoder", metavar="SRC", help="Source of the decoder: a folder or hub id, as in owner/name@revision."),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option("--vision", metavar="SRC", help="Source of the vision tower, if the encoder's source has none."),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option("--spec", metavar="SPEC", help="Architecture to make; by default, the pair of the two sources."),
    ] = None,
    settings: Settings = None,
    source_attention: Annotated[
        str,
        typer.Option(
            help="How the decoder reads the encoder: separate (T5Gemma), merged (T5Gemma 2), or auto: merged for two Gemma 3."
        ),
    ] = "auto",
    cross_attention: Annotated[
        str,
        typer.Option(
            help="Initialisation: auto (copy self-attention if the two configurations are equal, else random), "
            "self_attention, random, or zero_output (the decoder starts as its source)."
        ),
    ] = "auto",
    cross_attention_norms: Annotated[
        str, typer.Option(help="Norms around cross-attention: copy (those around self-attention) or identity.")
    ] = "copy",
    encoder_layers: Annotated[
        str | None, typer.Option(help="Layers of the encoder's source to keep: every:2, first:8 or 0,2,5.")
    ] = None,
    decoder_layers: Annotated[str | None, typer.Option(help="Layers of the decoder's source to keep.")] = None,
    vocabulary: Annotated[
        str | None, typer.Option(metavar="FILE", help="Tokens to keep, one a line or a JSON list; the others are dropped.")
    ] = None,
    vocabulary_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text or .jsonl file whose most frequent tokens are kept: as many as --keep says."),
    ] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="Size of the vocabulary, with --vocabulary-from.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Another tokenizer: its tokens start as the mean of the old tokens that spell them."),
    ] = None,
    seed: Seed = 0,
    dtype: Annotated[str | None, typer.Option(help="Dtype of the weights written; by default, that of the sources.")] = None,
    encoder_revision: Annotated[str | None, typer.Option(help="Hub revision of the encoder's source.")] = None,
    decoder_revision: Annotated[str | None, typer.Option(help="Hub revision of the decoder's source.")] = None,
    vision_revision: Annotated[str | None, typer.Option(help="Hub revision of the vision tower's source.")] = None,
) -> None:
    """The options that `plan` and `convert` share."""


def arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `shared` as arguments of the functions `plan` and `convert`. Invalid ones are wrong usage."""
    from pairform import Options
    from pairform.registry import SpecError

    patch = parse_set(given.pop("settings"))
    revisions = {role: given.pop(f"{role}_revision") for role in ("encoder", "decoder", "vision")}
    named = {"tokens": "vocabulary", "corpus": "vocabulary_from", "keep": "keep", "tokenizer": "tokenizer"}
    vocabulary = {field: value for field, name in named.items() if (value := given.pop(name)) is not None}
    given["vocabulary"] = vocabulary or None
    try:
        options = Options.read({name: given.pop(name) for name in Options.model_fields})
    except SpecError as error:
        raise typer.BadParameter(str(error)) from None
    revisions = {role: revision for role, revision in revisions.items() if revision is not None}
    return given | {"patch": patch, "options": options, "revisions": revisions}


def initialisation(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command with the options of `shared`, which `function` receives as its first argument, and its own."""
    common, (_, *own) = signature(shared).parameters, signature(function).parameters.values()

    @wraps(function)
    def command(**given: Any) -> None:
        function(arguments({name: given.pop(name) for name in common}), **given)

    required = [parameter for parameter in own if parameter.default is parameter.empty]
    parameters = [*required, *common.values(), *(parameter for parameter in own if parameter not in required)]
    command.__signature__ = Signature([each.replace(kind=each.KEYWORD_ONLY) for each in parameters])  # type: ignore[attr-defined]
    return command


@initialisation
def plan(given: dict[str, Any], rows: Rows = False, as_json: Json = False) -> None:
    """Show where the tensors of a new model would come from.

    Only headers are read, no weights.
    """
    from pairform import plan as make
    from pairform.cli.display.plan import print_plan

    made = make(**given)
    if as_json:
        print_json(made.document() | {"totals": made.totals})
    else:
        print_plan(made, rows=rows)


@initialisation
def convert(
    given: dict[str, Any],
    out: Out,
    max_shard_size: ShardSize = "5GB",
    format_: OutFormat = "pairform",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Initialise a model from decoder-only checkpoints.

    The new folder appears whole or not at all.
    """
    from pairform import convert as run
    from pairform.cli.display.printing import byte_progress, print_totals

    with byte_progress(shown=not as_json) as progress:
        report = run(
            out=out,
            format=check_format(format_),
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            progress=progress,
            **given,
        )
    if as_json:
        print_json({"out": str(report.out), "bytes": report.bytes, "seconds": report.seconds, "totals": report.plan.totals})
    else:
        print_totals(report.plan)
        print(f"{report.out}: {report.bytes:,} bytes of weights in {report.seconds:.1f} s")
