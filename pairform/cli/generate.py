"""The command `generate`."""

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
    do_sample: Annotated[bool, typer.Option("--do-sample", help="Sample tokens; by default, decoding is greedy.")] = False,
    temperature: Annotated[float | None, typer.Option(help="With --do-sample: higher is more random.  [default: 1]")] = None,
    top_k: Annotated[int | None, typer.Option(help="With --do-sample: sample from the k most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="With --do-sample: sample from the most probable tokens of total probability p.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --do-sample: random seed.")] = None,
    forced_bos: Annotated[
        int | None, typer.Option(min=0, help="First token id to generate, such as the target language.  [default: the model's]")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="Number of beams; 1 disables beam search.")] = 1,
    device: Annotated[str, typer.Option(help="Device to run on: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Dtype to compute in; by default, that of the weights.")] = None,
    quantise: Annotated[
        str | None, typer.Option(help="int8: store linear weights in eight bits, in half the memory of bfloat16.")
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
    from pairform.cli.text import TextModel

    chosen = torch_dtype(dtype) if dtype else None
    model = TextModel(directory, device=torch_device(device), dtype=chosen, quantise=quantise, prepack=prepack)
    input_ids = given if text is None else model.encode(text)
    options = {**sampling, "forced_bos_token_id": forced_bos}
    output_ids = model.generate(input_ids, max_new_tokens=max_new_tokens, do_sample=do_sample, num_beams=beams, **options)
    output = model.decode(output_ids) if text is not None else None
    if as_json:
        print_json({"input_ids": input_ids, "output_ids": output_ids, "text": output})
        return
    numbers = " ".join(map(str, output_ids))
    print(numbers if output is None else shown(output))
    if output is not None and not output.strip():
        print(f"note: wrote no text, only special tokens: {numbers}", file=sys.stderr)


def check_sampling(do_sample: bool, sampling: dict[str, Any]) -> None:
    """Sampling options without --do-sample are wrong usage, since greedy decoding would ignore them."""
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
