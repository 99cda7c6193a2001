"""The commands of `data`: prepare, show and fields."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.interruption import stop_message
from pairform.cli.options import FieldPath, Json, given_path, print_json

if TYPE_CHECKING:
    import numpy as np

    from pairform.training.data.corpus.manifest import Split
    from pairform.training.data.corpus.shards import Shards

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare a corpus: tokenise it once, for training.")
SAMPLE = 80
"""Tokens of each source that `show` prints as text."""


@data.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", parser=given_path, help="The corpus as JSON.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", parser=given_path, help="Folder to write.")],
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes that tokenise.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was prepared from other files or settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tokenise a corpus into a folder. After an interruption, run the same command to continue."""
    with stop_message("interrupted; run the same command to continue"):
        from pairform.cli.display.printing import byte_progress
        from pairform.training.data.corpus.prepare import prepare as write

        with byte_progress(shown=not as_json) as progress:
            shards = write(corpus, out, jobs=jobs, overwrite=overwrite, report=progress)
    show_shards(shards, as_json)


@data.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", parser=given_path, help="Folder of a prepared corpus.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with its SHA-256 first.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a prepared corpus holds: sources, documents, tokens, and a sample of each source."""
    from pairform.training.data.corpus.shards import Shards

    shards = Shards.open(directory)
    if verify:
        shards.verify()
    show_shards(shards, as_json, samples=True)


@data.command()
def fields(path: FieldPath = None, as_json: Json = False) -> None:
    """List the fields of a corpus file: type, default and meaning."""
    from pairform.cli.fields import show_fields
    from pairform.training.data.corpus.spec import CorpusSpec

    show_fields(CorpusSpec, path, as_json)


def show_shards(shards: "Shards", as_json: bool, samples: bool = False) -> None:
    from pairform.cli.display.printing import Sheet, print_wide
    from pairform.registry.errors import cut_end, printable

    document = described(shards, samples)
    if as_json:
        print_json(document)
        return
    table = Sheet("source", "kind", "weight", "documents", "tokens", "held out", "dropped")
    for source in document["sources"]:
        train, held_out = source["train"], source["held_out"]
        counts = (f"{train['documents']:,}", f"{train['tokens']:,}", f"{held_out['documents']:,}", f"{source['dropped']:,}")
        table.add_row(source["name"], source["kind"], f"{source['weight']:g}", *counts)
    print_wide(table)
    print(f"tokenizer: {document['tokenizer']}, {document['vocabulary']:,} ids, {document['dtype']}")
    print(f"digest: {document['digest']}")
    for source in document["sources"]:
        for part, text in source.get("sample", {}).items():
            print(cut_end(printable(f"{source['name']} ({part}): {text}"), 500))


def described(shards: "Shards", samples: bool) -> dict[str, Any]:
    """A shard folder as JSON. Tokens are those of the documents, without end tokens; of pairs, of both sides."""
    from pairform.training.data.corpus.manifest import SPLITS

    manifest = shards.manifest
    sources: list[dict[str, Any]] = []
    for source in manifest.sources:
        entry: dict[str, Any] = {"name": source.name, "kind": source.kind, "weight": source.weight, "dropped": source.dropped}
        for split in SPLITS:
            streams = getattr(source, split).streams()
            entry[split] = {
                "documents": sum(shard.documents for shard in streams[source.streams[0]]),
                "tokens": sum(shard.tokens for stream in streams.values() for shard in stream),
            }
        entry["files"] = len(source.files)
        sources.append(entry)
    if samples:
        for entry, sample in zip(sources, samples_of(shards), strict=True):
            entry["sample"] = sample
    tokenizer = manifest.tokenizer.name if manifest.tokenizer.sha256 is None else f"sha256 {manifest.tokenizer.sha256[:16]}"
    return {
        "sources": sources,
        "tokenizer": tokenizer,
        "vocabulary": shards.vocabulary,
        "dtype": manifest.dtype.name,
        "digest": shards.digest,
    }


def samples_of(shards: "Shards") -> list[dict[str, str]]:
    """For each source, the first tokens of its first document, as text by stream."""
    decode = decoder(shards)
    found = []
    for index, source in enumerate(shards.manifest.sources):
        split: Split = "train" if any(source.train.streams().values()) else "held_out"
        parts = {stream: shards.parts(index, split, stream) for stream in source.streams}
        found.append({stream: decode(next(part.fragments(0, SAMPLE)).tokens) for stream, part in parts.items() if part.shards})
    return found


def decoder(shards: "Shards") -> "Callable[[np.ndarray], str]":
    if shards.tokenizer is None:
        return lambda ids: bytes(ids.astype("u1")).decode("utf-8", "replace")
    from pairform.training.data.tokenizer_files import read_tokenizer

    tokenizer = read_tokenizer(shards.tokenizer, "tokenizer")
    return lambda ids: str(tokenizer.decode(ids.tolist(), skip_special_tokens=False))
