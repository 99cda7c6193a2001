"""The commands that read and write weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pairform.cli_options import Json, Settings, parse_set, print_json, torch_device, torch_dtype

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A model's folder, or a hub id owner/name.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")]
OutFormat = Annotated[str, typer.Option("--format", help="pairform, or transformers for a folder that transformers loads.")]
ShardSize = Annotated[str, typer.Option("--max-shard-size", help="The largest file, as in 500MB or 5GB.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model that is there.")]
Encoder = Annotated[str | None, typer.Option("--encoder", metavar="SRC", help="Source of the encoder: a folder or hub id.")]
Decoder = Annotated[str | None, typer.Option("--decoder", metavar="SRC", help="Source of the decoder: a folder or hub id.")]
Vision = Annotated[
    str | None, typer.Option("--vision", metavar="SRC", help="Source of the vision tower, where the encoder's has none.")
]
EncoderRevision = Annotated[str | None, typer.Option(help="Of the encoder's source on the hub.")]
DecoderRevision = Annotated[str | None, typer.Option(help="Of the decoder's source on the hub.")]
VisionRevision = Annotated[str | None, typer.Option(help="Of the vision tower's source on the hub.")]
TargetSpec = Annotated[
    str | None, typer.Option("--spec", metavar="SPEC", help="What to make; without it, the pair of the two sources.")
]
SourceAttention = Annotated[
    str,
    typer.Option(
        "--source-attention",
        help="Of a pair of two sources: merged as in T5Gemma 2, separate as in T5Gemma; auto: merged for two Gemma 3.",
    ),
]
Cross = Annotated[
    str,
    typer.Option(
        "--cross-attention",
        help="auto copies self-attention in balanced pairs, else draws; self_attention; random; zero_output starts silent.",
    ),
]
CrossNorms = Annotated[str, typer.Option("--cross-attention-norms", help="copy (of self-attention's) or identity.")]
EncoderLayers = Annotated[str | None, typer.Option(help="Layers to keep: every:2, first:8 or 0,2,5.")]
DecoderLayers = Annotated[str | None, typer.Option(help="Likewise, of the decoder's source.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the values that are drawn.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="Of every tensor written; without it, as in the sources.")]


def make_options(
    source_attention: str,
    cross_attention: str,
    norms: str,
    encoder_layers: str | None,
    decoder_layers: str | None,
    seed: int,
    dtype: str | None,
) -> Any:
    """The options of an initialisation; what cannot be read is wrong usage."""
    from pairform import Options
    from pairform.registry import SpecError

    try:
        return Options.read(
            {
                "source_attention": source_attention,
                "cross_attention": cross_attention,
                "cross_attention_norms": norms,
                "encoder_layers": encoder_layers,
                "decoder_layers": decoder_layers,
                "seed": seed,
                "dtype": dtype,
            }
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from None


def revisions(**given: str | None) -> dict[str, str]:
    return {role: revision for role, revision in given.items() if revision is not None}


def check_format(name: str) -> Any:
    if name not in ("pairform", "transformers"):
        raise typer.BadParameter(f"found {name!r}, expected pairform or transformers", param_hint="--format")
    return name


def plan(
    encoder: Encoder = None,
    decoder: Decoder = None,
    vision: Vision = None,
    spec: TargetSpec = None,
    settings: Settings = None,
    source_attention: SourceAttention = "auto",
    cross_attention: Cross = "auto",
    cross_attention_norms: CrossNorms = "copy",
    encoder_layers: EncoderLayers = None,
    decoder_layers: DecoderLayers = None,
    seed: Seed = 0,
    dtype: Dtype = None,
    encoder_revision: EncoderRevision = None,
    decoder_revision: DecoderRevision = None,
    vision_revision: VisionRevision = None,
    as_json: Json = False,
) -> None:
    """Show where every tensor of a new model would come from; no weights are read."""
    from pairform import plan as make
    from pairform.printing import print_plan

    made = make(
        encoder=encoder,
        decoder=decoder,
        vision=vision,
        spec=spec,
        patch=parse_set(settings),
        revisions=revisions(encoder=encoder_revision, decoder=decoder_revision, vision=vision_revision),
        options=make_options(
            source_attention, cross_attention, cross_attention_norms, encoder_layers, decoder_layers, seed, dtype
        ),
    )
    if as_json:
        print_json(made.document() | {"totals": made.totals})
    else:
        print_plan(made)


def convert(
    out: Out,
    encoder: Encoder = None,
    decoder: Decoder = None,
    vision: Vision = None,
    spec: TargetSpec = None,
    settings: Settings = None,
    source_attention: SourceAttention = "auto",
    cross_attention: Cross = "auto",
    cross_attention_norms: CrossNorms = "copy",
    encoder_layers: EncoderLayers = None,
    decoder_layers: DecoderLayers = None,
    seed: Seed = 0,
    dtype: Dtype = None,
    encoder_revision: EncoderRevision = None,
    decoder_revision: DecoderRevision = None,
    vision_revision: VisionRevision = None,
    max_shard_size: ShardSize = "5GB",
    format_: OutFormat = "pairform",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Initialise a new model from the sources and write its folder, whole or not at all."""
    from pairform import convert as run
    from pairform.printing import byte_progress, print_totals

    options = make_options(
        source_attention, cross_attention, cross_attention_norms, encoder_layers, decoder_layers, seed, dtype
    )
    with byte_progress(shown=not as_json) as progress:
        report = run(
            out=out,
            encoder=encoder,
            decoder=decoder,
            vision=vision,
            spec=spec,
            patch=parse_set(settings),
            options=options,
            revisions=revisions(encoder=encoder_revision, decoder=decoder_revision, vision=vision_revision),
            format=check_format(format_),
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json({"out": str(report.out), "bytes": report.bytes, "seconds": report.seconds, "totals": report.plan.totals})
    else:
        print_totals(report.plan)
        print(f"{report.out}: {report.bytes:,} bytes of weights in {report.seconds:.1f} s")


def verify(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder.")], as_json: Json = False) -> None:
    """Re-read a folder: names, shapes, dtypes, checksums, values that are not finite."""
    from pairform import verify as check
    from pairform.printing import byte_progress

    with byte_progress(shown=not as_json) as progress:
        found = check(directory, progress=progress)
    if as_json:
        print_json({"ok": found.ok, "tensors": found.tensors, "problems": [str(problem) for problem in found.problems]})
    else:
        compared = "checksums compared" if found.checksums else "no provenance to compare checksums with"
        for problem in found.problems:
            print(f"error: {problem}")
        verdict = "ok" if found.ok else f"{len(found.problems)} problems"
        print(f"{directory}: {verdict} ({found.tensors} tensors, {found.parameters:,} parameters, {compared})")
    if not found.ok:
        raise typer.Exit(1)


def export(
    directory: Folder,
    out: Out,
    format_: OutFormat = "transformers",
    max_shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
) -> None:
    """Write a model's folder in another format, byte for byte the same tensors."""
    from pairform import export as run
    from pairform.printing import byte_progress

    with byte_progress() as progress:
        written = run(
            directory,
            out,
            format=check_format(format_),
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            progress=progress,
        )
    print(f"{out}: {written:,} bytes of weights")


def extract(
    directory: Folder,
    out: Out,
    part: Annotated[str, typer.Option("--part", help="encoder, or a decoder that reads no source.")] = "encoder",
    format_: OutFormat = "pairform",
    max_shard_size: ShardSize = "5GB",
    overwrite: Overwrite = False,
) -> None:
    """Write one stack of a model to a folder of its own, to work alone."""
    from pairform import extract as run
    from pairform.printing import byte_progress

    if part not in ("encoder", "decoder"):
        raise typer.BadParameter(f"found {part!r}, expected encoder or decoder", param_hint="--part")
    with byte_progress() as progress:
        written = run(
            directory,
            out,
            part="encoder" if part == "encoder" else "decoder",
            format=check_format(format_),
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            progress=progress,
        )
    print(f"{out}: {written:,} bytes of weights")


def generate(
    directory: Folder,
    text: Annotated[str | None, typer.Option(help="What to read, through the folder's tokenizer.")] = None,
    ids: Annotated[str | None, typer.Option(help="What to read, as token ids: '5 17 3'.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    do_sample: Annotated[bool, typer.Option("--do-sample", help="Draw tokens; without it, take the likeliest.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --do-sample.")] = None,
    top_k: Annotated[int | None, typer.Option(help="With --do-sample.")] = None,
    top_p: Annotated[float | None, typer.Option(help="With --do-sample.")] = None,
    seed: Annotated[int | None, typer.Option(help="With --do-sample.")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Texts that beam search follows; 1 is greedy.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="To compute in; without it, the stored one.")] = None,
    quantise: Annotated[str | None, typer.Option(help="int8: linear weights in eight bits, to half the memory.")] = None,
    prepack: Annotated[bool, typer.Option("--prepack", help="Weights as a CPU's products read them: quicker steps.")] = False,
    as_json: Json = False,
) -> None:
    """Write tokens with the model in a folder."""
    if (text is None) == (ids is None):
        raise typer.BadParameter("found both or neither, expected one of --text and --ids")
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    check_sampling(do_sample, sampling)
    given = [] if ids is None else parse_ids(ids)
    from pairform.text import Writer

    chosen = torch_dtype(dtype) if dtype else None
    writer = Writer(directory, device=torch_device(device), dtype=chosen, quantise=quantise, prepack=prepack)
    read = given if text is None else writer.encode(text)
    written = writer.generate(read, max_new_tokens=max_new_tokens, do_sample=do_sample, num_beams=beams, **sampling)
    answer = writer.decode(written) if text is not None else None
    if as_json:
        print_json({"input_ids": read, "output_ids": written, "text": answer})
    else:
        print(" ".join(map(str, written)) if answer is None else answer)


def check_sampling(do_sample: bool, sampling: dict[str, Any]) -> None:
    """Options of sampling mean nothing to greedy decoding; to pass over them would mislead."""
    given = [f"--{name.replace('_', '-')}" for name, value in sampling.items() if value is not None]
    if given and not do_sample:
        raise typer.BadParameter(f"found {', '.join(given)} alone, expected --do-sample beside it")


def parse_ids(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise typer.BadParameter(f"found {text!r}, expected token ids such as '5 17 3'", param_hint="--ids")
    return found


def add_weight_commands(app: typer.Typer) -> None:
    for command in (plan, convert, verify, export, extract, generate):
        app.command()(command)
