"""Arguments and options that several commands share."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer


def complete_spec(incomplete: str) -> list[str]:
    """Shell completion of a spec: presets. If none matches, shells complete paths."""
    from pairform.registry.documents import presets

    return [name for name in presets() if name.startswith(incomplete)]


Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A preset's name, a JSON file, a model's folder or a hub id.", autocompletion=complete_spec
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rows = Annotated[bool, typer.Option("--rows", help="Show one row per tensor instead of a summary.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value of the spec, as in decoder.depth=4. Repeatable."),
]
Drawn = Annotated[str | None, typer.Option("--diagram", metavar="FORM", help="Print a diagram instead: svg or mermaid.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="A model's folder, or a hub id: owner/name or owner/name@revision.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
OutFormat = Annotated[str, typer.Option("--format", help="Layout of the folder: pairform or transformers.")]
ShardSize = Annotated[str, typer.Option("--max-shard-size", help="Size limit of one weights file, as in 500MB or 5GB.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model that is in the folder.")]
Slurm = Annotated[
    list[str] | None, typer.Option("--slurm", metavar="NAME=VALUE", help="Slurm setting, as in partition=gpu. Repeatable.")
]
FieldPath = Annotated[
    str | None, typer.Argument(metavar="[PATH]", help="A field, as in training.optimizer; by default, all fields.")
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed for newly initialised weights.")]


def parse_set(settings: list[str] | None) -> dict[str, Any]:
    """The patch that --set options make. An invalid one is wrong usage, as for all parsers here."""
    from pairform.registry import SpecError, parse_settings

    try:
        return parse_settings(settings or [])
    except SpecError as error:
        raise typer.BadParameter(str(error)) from None


def parse_named(settings: list[str] | None, option: str, example: str) -> dict[str, Any]:
    """The patch that a repeatable option NAME=VALUE makes."""
    from pairform.registry import Problem, SpecError, parse_settings

    try:
        return parse_settings(settings or [])
    except SpecError as error:
        found, remedy = error.problems[0].found, error.problems[0].remedy
        problem = Problem("", found, f"NAME=VALUE, as in {example}", remedy)
        raise typer.BadParameter(str(problem), param_hint=option) from None


def parse_slurm(settings: list[str] | None) -> dict[str, Any]:
    return parse_named(settings, "--slurm", "partition=gpu")


def given_path(text: str) -> Path:
    """A path that is not empty, which Python would take for the current folder."""
    if not text:
        raise typer.BadParameter(
            "found an empty path, expected a file or folder. If a shell variable gives the path, it is not set"
        )
    return Path(text)


def one_of(value: str, known: Collection[str], option: str) -> Any:
    """`value`, which must be one of the `known` values of an option."""
    if value not in known:
        raise typer.BadParameter(f"found {value!r}, expected {' or '.join(known)}", param_hint=option)
    return value


def diagram_form(name: str) -> Any:
    from pairform.assemblies.analysis.diagrams import FORMS

    return one_of(name, FORMS, "--diagram")


def check_format(name: str) -> Any:
    return one_of(name, ("pairform", "transformers"), "--format")


def torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, one_of(name, ("float32", "bfloat16", "float16", "float64"), "--dtype"))


def torch_device(name: str) -> Any:
    """A device that torch can allocate on here."""
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError):
        raise typer.BadParameter(f"found {name!r}, expected a device that torch can use here", param_hint="--device") from None
    return torch.device(name)


def print_json(document: Any) -> None:
    """Print indented JSON in Unicode, with characters that a terminal interprets escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    print("\n".join(line if line.isprintable() else escaped(line) for line in text.split("\n")))


def escaped(line: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
