"""The commands that read specs: `presets`, `show`, `diff`, `schema`, `inspect` and `eject`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pairform.cli.options import Drawn, Json, Settings, Spec, diagram_form, one_of, parse_set, print_json, torch_dtype


def presets(as_json: Json = False) -> None:
    """List the architectures that come with pairform."""
    from pairform.registry.documents import preset_sizes

    found = preset_sizes()
    if as_json:
        print_json(found)
        return
    table = [("preset", "parameters", "encoder", "decoder"), *(cells(name, size) for name, size in found.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, parameters, *stacks in table:
        row = [name.ljust(widths[0]), parameters.rjust(widths[1])]
        row += [cell.ljust(width) for cell, width in zip(stacks, widths[2:], strict=True)]
        print("  ".join(row).rstrip())
    print("\nencoder, decoder: layers x width")


def cells(name: str, size: dict[str, Any]) -> tuple[str, ...]:
    stacks = (f"{size[part]['depth']:>2} x {size[part]['width']}" if part in size else "" for part in ("encoder", "decoder"))
    return name, f"{size['parameters']:,}", *stacks


def show(spec: Spec, settings: Settings = None, drawn: Drawn = None, as_json: Json = False) -> None:
    """Show a spec as a tree or a diagram.

    With --json, print its expanded form: no `extends`, defaults written out.
    """
    from pairform.cli.display.outline import print_spec, with_layers

    if drawn:
        from pairform import diagram

        print(diagram(read_spec(spec, settings), diagram_form(drawn), title=spec), end="")
    elif as_json:
        print_json(expanded_form(spec, settings))
    else:
        print_spec(spec, expanded_form(spec, settings) if is_preset(spec, settings) else with_layers(read_spec(spec, settings)))


def diff(old: Spec, new: Spec, drawn: Drawn = None, as_json: Json = False) -> None:
    """Compare two specs, as a table or in a diagram of the second."""
    from pairform.cli.display.printing import print_diff
    from pairform.registry.merge import difference

    if drawn:
        from pairform import diagram

        print(diagram(new, diagram_form(drawn), old=old, title=f"{new} against {old}"), end="")
        return
    found = difference(expanded_form(old), expanded_form(new))
    if as_json:
        print_json({path: {"old": was, "new": now} for path, (was, now) in found.items()})
    else:
        print_diff(old, new, found)


def schema(
    of: Annotated[str, typer.Argument(metavar="[KIND]", help="What the schema is of: model, study or recipe.")] = "model",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default the schema is printed.")
    ] = None,
) -> None:
    """Write the JSON Schema of specs, studies or recipes, for editors."""
    from pairform import schema as model_schema
    from pairform.experiments.study.schema import study_schema
    from pairform.registry import write_text
    from pairform.training.adaptation.schema import recipe_schema

    makers = {"model": model_schema, "study": study_schema, "recipe": recipe_schema}
    text = json.dumps(makers[one_of(of, makers, "KIND")](), indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def inspect(
    spec: Spec,
    settings: Settings = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in the batch.")] = 1,
    source_length: Annotated[int, typer.Option(min=1, help="Tokens per sequence that the encoder reads.")] = 512,
    target_length: Annotated[int, typer.Option(min=1, help="Tokens per sequence that the decoder reads or writes.")] = 128,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures in the batch. Their tokens count as source tokens.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Dtype of cached keys and values: float32, bfloat16, float16 or float64.")
    ] = "bfloat16",
    as_json: Json = False,
) -> None:
    """Count parameters, FLOPs and cache bytes of a spec, by part.

    Nothing is allocated. FLOPs are those of one forward pass.
    """
    from pairform import inspect as measure
    from pairform.cli.display.printing import print_inspection

    found = measure(
        read_spec(spec, settings),
        batch=batch,
        source_length=source_length,
        target_length=target_length,
        pictures=pictures,
        dtype=torch_dtype(dtype),
    )
    if as_json:
        print_json(found.document())
    else:
        print_inspection(spec, found)


def eject(
    spec: Spec,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default the code is printed.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write the model as one Python file, which imports torch only.

    The file reads the weights of this architecture and computes the same in float32.
    """
    from pairform import eject as written
    from pairform.registry import OutputError, Problem, write_text

    text = written(read_spec(spec, settings))
    if out is None:
        print(text, end="")
        return
    if out.is_file() and not overwrite:
        raise OutputError(Problem(str(out), "a file", "a new path", "Pass --overwrite to replace it."))
    write_text(out, text)


def is_preset(ref: str, settings: list[str] | None = None) -> bool:
    """Whether the expanded form is a committed file, so that neither blocks nor torch need to be imported."""
    from pairform.registry.documents import presets

    return not settings and ref in presets()


def expanded_form(ref: str, settings: list[str] | None = None) -> dict[str, Any]:
    from pairform.registry.documents import expanded

    return expanded(ref) if is_preset(ref, settings) else read_spec(ref, settings).document()


def read_spec(ref: str, settings: list[str] | None) -> Any:
    from pairform import load_spec

    return load_spec(ref, parse_set(settings))
