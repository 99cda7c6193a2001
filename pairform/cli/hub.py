"""The commands for the Hugging Face hub: `card` and `push`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pairform.cli.options import Json, given_path, one_of, print_json

ModelFolder = Annotated[Path, typer.Argument(metavar="DIR", parser=given_path, help="A model's folder.")]
License = Annotated[
    str | None,
    typer.Option("--license", metavar="NAME", help="Licence, as in apache-2.0; by default that of the model's bases."),
]


def card(
    directory: ModelFolder,
    license_: License = None,
    repository: Annotated[
        str | None, typer.Option("--repository", metavar="OWNER/NAME", help="Hub id in the examples; by default DIR's name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default the card is printed.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write the model card of a folder.

    It says what the model is, how to load it, how it was made, and its licence.
    """
    from pairform import model_card
    from pairform.registry import OutputError, Problem, write_text
    from pairform.registry.errors import shown

    if out is not None and out.exists() and not overwrite:
        raise OutputError(Problem(str(out), "a file that exists", "a new one", "Add --overwrite to replace it."))
    text = model_card(directory, repository=repository, license=license_)
    if out is None:
        print(shown(text), end="")
    else:
        write_text(out, text)


def push(
    directory: ModelFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Hub id. A new repository is created.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of the repository; by default as it is, or the hub's default."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="Branch, created if it does not exist.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", metavar="TEXT", help="Message of the commit.")] = None,
    license_: License = None,
    kept: Annotated[str, typer.Option("--card", help="A model card that exists: keep, or replace with a new one.")] = "keep",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the folder and list its files; send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Publish a model's folder on the Hugging Face hub.

    All of it appears in one commit. A push that was interrupted continues: files that the hub has are not sent again.
    """
    from pairform import push as publish

    done = publish(
        directory,
        repository,
        private=private,
        revision=revision,
        message=message,
        license=license_,
        card=one_of(kept, ("keep", "replace"), "--card"),
        dry_run=dry_run,
    )
    if as_json:
        print_json(asdict(done))
        return
    width = max(map(len, done.files))
    for name, size in done.files.items():
        print(f"{name.ljust(width)}  {size:>15,} bytes")
    if "README.md" not in done.files:
        print(f"{'README.md'.ljust(width)}  kept as it is there; --card replace writes a new one")
    for name in done.removed:
        print(f"{name.ljust(width)}  removed")
    print(f"{done.url}: {'not sent' if done.commit is None else 'published'} ({sum(done.files.values()):,} bytes)")
