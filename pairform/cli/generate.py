"""The command `generate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.generation.many_inputs import as_lines, generate_all, read_inputs, several
from pairform.cli.generation.settings import check_sampling, flag, parsed, with_settings
from pairform.cli.generation.text_stream import TextStream
from pairform.cli.interruption import stop_message
from pairform.cli.options import Folder, Json, escaped, given_path, print_json, torch_device, torch_dtype
from pairform.registry import OutputError, Problem, output_path, shown, write_text

if TYPE_CHECKING:
    from pairform.assemblies.specs.generation import GenerationSpec
    from pairform.cli.text import TextModel

BATCH = 8


@with_settings()
def generate(
    directory: Folder,
    text: Annotated[str | None, typer.Option(help="Input as text, for the folder's tokenizer.")] = None,
    ids: Annotated[str | None, typer.Option(help="Input as token ids, as in '5 17 3'.")] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="Many inputs as JSONL: a text or input_ids a line."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="JSONL to write, with --inputs.  [default: standard output]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --out names.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Inputs of one batch, with --inputs.  [default: 8]")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", parser=given_path, help="Picture for a model with vision. Repeatable."),
    ] = None,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Print while generating.  [default: if a terminal shows it]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --do-sample: random seed.")] = None,
    device: Annotated[str, typer.Option(help="Device to run on: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Dtype to compute in; by default, that of the weights.")] = None,
    quantise: Annotated[
        str | None,
        typer.Option(help="int8: store linear weights in eight bits; int8_dynamic: also multiply in eight bits, on a CPU."),
    ] = None,
    prepack: Annotated[
        bool, typer.Option("--prepack", help="Repack weights for the CPU once: faster steps for batches.")
    ] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Generate text or token ids with a model. The settings of its folder are the defaults."""
    if sum(given is not None for given in (text, ids, inputs)) != 1:
        raise typer.BadParameter("found none or several, expected one of --text and --ids, or --inputs")
    chosen = parsed(settings)
    if inputs is None:
        check_apart("--inputs", out=out, overwrite=overwrite, batch_size=batch_size)
    else:
        check_apart("--text or --ids", image=image, stream=stream, json=as_json)
        check_out(out, overwrite)
    given = [] if ids is None else parse_ids(ids)
    from pairform.cli.text import TextModel

    kind = torch_dtype(dtype) if dtype else None
    model = TextModel(directory, device=torch_device(device), dtype=kind, quantise=quantise, prepack=prepack)
    check_sampling(chosen, seed, model.settings(chosen).do_sample)
    chosen = model.settings(chosen)
    if inputs is not None:
        generate_many(model, inputs, out, batch_size or BATCH, chosen, seed)
        return
    pixels = model.read_pictures(image or [])
    input_ids = model.place_pictures(given if text is None else model.encode(text), len(image or []))
    if not input_ids:
        raise typer.BadParameter("found a text without tokens, expected at least one", param_hint="--text")
    printer = Printer(model, as_text=text is not None) if streams(stream, as_json, chosen) else None
    rows = model.generate([input_ids], chosen, seed=seed, pixels=pixels, streamer=printer)
    output = None if text is None else list(map(model.decode, rows))
    if as_json:
        print_json({"input_ids": input_ids, "output_ids": several(rows), "text": output and several(output)})
        return
    if printer is None:
        print("\n".join(map(numbers, rows) if output is None else map(shown, output)))
    else:
        printer.end()
    for ids_of_row, written in zip(rows, output or (), strict=False):
        if not written.strip():
            print(f"note: wrote no text, only special tokens: {numbers(ids_of_row)}", file=sys.stderr)


class Printer:
    """Prints the output while it is generated."""

    def __init__(self, model: "TextModel", *, as_text: bool) -> None:
        self.stream = TextStream(model.decode if as_text else numbers)

    def __call__(self, token: int) -> None:
        print(shown(self.stream.put(token)), end="", flush=True)

    def end(self) -> None:
        print(shown(self.stream.end()))


def numbers(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def streams(asked: bool | None, as_json: bool, settings: "GenerationSpec") -> bool:
    """Whether the output is printed while it is generated."""
    single = settings.num_beams == 1 and settings.num_return_sequences == 1
    if asked and (as_json or not single):
        found = "--json" if as_json else "several beams or sequences, whose output is known at the end"
        raise typer.BadParameter(f"found {found}, expected --no-stream beside it", param_hint="--stream")
    return single and not as_json and (sys.stdout.isatty() if asked is None else asked)


def generate_many(
    model: "TextModel", inputs: Path, out: Path | None, size: int, settings: "GenerationSpec", seed: int | None
) -> None:
    """Generate from all inputs of a file, and write the results in their order at the end, whole or not at all."""
    with stop_message("interrupted; nothing was written"):
        from pairform.cli.display.printing import count_progress

        read = read_inputs(inputs, model)
        with count_progress("inputs", len(read)) as progress:
            lines = as_lines(generate_all(model, read, size, settings, seed, progress))
        if out is None:
            print("\n".join(map(escaped, lines.split("\n"))), end="")
        else:
            write_text(out, lines)


def check_out(path: Path | None, overwrite: bool) -> None:
    """`OutputError` for a file that cannot be written, before any work is done."""
    if path is None:
        if overwrite:
            raise typer.BadParameter("found --overwrite alone, expected --out beside it")
        return
    target = output_path(path)
    if target.is_dir():
        raise OutputError(Problem(str(path), "a folder", "the path of a file"))
    if target.is_file() and not overwrite:
        raise OutputError(Problem(str(path), "a file that exists", "a new file", "Use --overwrite to replace it."))
    if not target.parent.is_dir():
        raise OutputError(Problem(str(target.parent), "no such folder", "a folder to write into"))


def check_apart(needed: str, **options: Any) -> None:
    """Options that another kind of input would ignore are wrong usage."""
    given = [flag(name) for name, value in options.items() if value not in (None, False, [])]
    if given:
        raise typer.BadParameter(f"found {', '.join(given)}, expected {needed} beside it")


def parse_ids(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise typer.BadParameter(f"found {text!r}, expected token ids such as '5 17 3'", param_hint="--ids")
    return found
