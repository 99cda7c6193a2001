"""The commands of `adapt`: run and status."""

from pathlib import Path
from typing import Annotated

import typer

from pairform.cli.options import Json, Settings, given_path, parse_set, print_json

adapt = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a model by a recipe: adapt, pretrain or fine-tune it.")
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", parser=given_path, help="Folder of a run.")]


@adapt.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", parser=given_path, help="The recipe as JSON.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", parser=given_path, help="Folder of the run.")],
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a model, or resume the run in the folder. Start it with torchrun for several processes.

    After an interruption, run the same command to continue.
    """
    from pairform.training.adapt import adapt as run_recipe
