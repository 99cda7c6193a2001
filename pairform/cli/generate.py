"""The command that writes tokens with a model: `generate`."""

import sys
from typing import Annotated, Any

import typer

from pairform.cli.options import Folder, Json, print_json, torch_device, torch_dtype
from pairform.registry.errors import shown


def generate(
    directory: Folder,
    text: Annotated[str | None, typer.Option(help="Input as text, for the folder's tokenizer.")] = None,
    ids: Annotated[str | None, typer.Option(help="Input as token ids, as in '5 17 3'.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens to generate.")] = 64,
    do_sample: Annotated[bool, typer.Option("--do-sample", help="Sample tokens; by default, the likeliest is taken.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --do-sample: above 1 is more random.  [default: 1]")] = None,
    top_k: Annotated[int | None, typer.Option(help="With --do-sample: sample from the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="With --do-sample: sample from the likeliest tokens of total probability p.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --do-sample: makes samples repeatable.")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Number of beams; 1 is no beam search.")] = 1,
    device: Annotated[str, typer.Option(help="Device to run on: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Dtype to compute in; by default, that of the weights.")] = None,
    quantise: Annotated[
        str | None, typer.Option(help="int8: keep linear weights in eight bits, for half the memory of bfloat16.")
    ] = None,
    prepack: Annotated[
        bool, typer.Option("--prepack", help="Repack weights for the CPU once: faster steps for batches.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Generate text or token ids with a model."""
    if (text is None) == (ids is None):
        raise typer.BadParameter("found both or neither, expected one of --text and --ids")
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    check_sampling(do_sample, sampling)
    given = [] if ids is None else parse_ids(ids)
    from pairform.cli.text import Writer

    chosen = torch_dtype(dtype) if dtype else None
    writer = Writer(directory, device=torch_device(device), dtype=chosen, quantise=quantise, prepack=prepack)
    read = given if text is None else writer.encode(text)
    written = writer.generate(read, max_new_tokens=max_new_tokens, do_sample=do_sample, num_beams=beams, **sampling)
    answer = writer.decode(written) if text is not None else None
    if as_json:
        print_json({"input_ids": read, "output_ids": written, "text": answer})
    else:
        print(" ".join(map(str, written)) if answer is None else shown(answer))
        if answer is not None and not answer.strip():
            ids_written = " ".join(map(str, written))
            print(f"note: wrote no text, only special tokens: {ids_written}", file=sys.stderr)


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
