"""How far a preparation has come, as a file: what is being prepared, and what of it is on the disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, Strict

from pairform.registry import Problem, Spec, SpecError, read_json, replace_text
from pairform.training.data.corpus.manifest import (
    PAIR,
    SPLITS,
    TEXT,
    FileRecord,
    ShardName,
    SourceRecord,
    SplitRecord,
    TokenizerRecord,
)
from pairform.training.data.corpus.shard import ENDS, sha256_of

PROGRESS = "progress.json"
PROGRESS_BYTES = 128 << 20
ANEW = "`--overwrite` prepares the corpus anew."
Number = Annotated[int, Field(ge=0, lt=2**63)]


class FileStamp(Spec):
    """A source file when the preparation began.

    name:  its path relative to the corpus's folder.
    stamp: size in bytes, and times of the last changes of the content and of the file, in nanoseconds.
    """

    name: str
    stamp: Annotated[tuple[Number, int, int], Strict(False)]


class Plan(Spec):
    """What is prepared: a preparation is continued only with an equal plan."""

    corpus: dict[str, Any]
    tokenizer: TokenizerRecord
    files: Annotated[tuple[Annotated[tuple[FileStamp, ...], Strict(False)], ...], Strict(False)]


class SplitState(Spec):
    """A split that is being written.

    finished: its shards that are complete.
    open:     tokens and documents of the shard that is not, for each stream.
    dropped:  documents without tokens.
    """

    finished: SplitRecord = SplitRecord()
    open: Annotated[tuple[Annotated[tuple[Number, Number], Strict(False)], ...], Strict(False)] = ()
    dropped: Number = 0


class SourceState(Spec):
    """A source that is being written. mark: the place up to which it is; files: those that were read to their end."""

    mark: Annotated[tuple[Number, Number, Number, Number], Strict(False)] = (0, 0, 0, 0)
    files: Annotated[tuple[FileRecord, ...], Strict(False)] = ()
    train: SplitState = SplitState()
    held_out: SplitState = SplitState()


class Progress(Spec):
    """The contents of `progress.json`. sources: those that are complete; state: of the next one."""

    plan: Plan
    sources: Annotated[tuple[SourceRecord, ...], Strict(False)] = ()
    state: SourceState = SourceState()

    @classmethod
    def load(cls, folder: Path) -> "Progress | None":
        """The progress in a folder, if there is any; `SpecError` if the file is invalid."""
        file = folder / PROGRESS
        if not file.exists():
            return None
        progress = cls.read(read_json(file, PROGRESS_BYTES), where=str(file))
        if len(progress.sources) > len(progress.plan.files):
            raise SpecError(Problem(str(file), "more sources than planned", "the file as it was left", ANEW))
        return progress

    def save(self, folder: Path) -> None:
        replace_text(folder / PROGRESS, json.dumps(self.document()) + "\n", durable=True)


def check_equal(progress: Progress, plan: Plan, files: Sequence[Sequence[tuple[str, Path]]], where: str) -> None:
    """`SpecError` if an interrupted preparation had another plan, or a file has changed that it has read or will read.

    A file whose stamp is the same has not changed. Of one that was read to its end, the content is compared. where: the
    folder of the preparation.
    """
    for what, old, new in (
        ("corpus file", progress.plan.corpus, plan.corpus),
        ("tokenizer or chat template", progress.plan.tokenizer, plan.tokenizer),
        ("list of files", *([[each.name for each in source] for source in each.files] for each in (progress.plan, plan))),
    ):
        if old != new:
            raise SpecError(Problem(where, f"an interrupted preparation with another {what}", "the same", ANEW))
    records = [source.files for source in progress.sources] + [progress.state.files]
    for index, (before, now) in enumerate(zip(progress.plan.files, plan.files, strict=True)):
        for number, (earlier, later) in enumerate(zip(before, now, strict=True)):
            known = records[index][number] if index < len(records) and number < len(records[index]) else None
            begun = index == len(progress.sources) and number == progress.state.mark[0] and progress.state.mark[1] > 0
            file = files[index][number][1]
            if earlier.stamp == later.stamp:
                continue
            if known is not None and sha256_of(file) == known.sha256:
                continue
            if known is not None or begun or earlier.stamp[:2] != later.stamp[:2]:
                raise changed(file)


def check_written(progress: Progress, folder: Path, dtype: np.dtype[Any]) -> None:
    """`SpecError` if a file of an interrupted preparation is missing, or shorter than it was."""
    for name, tokens, documents in written(progress):
        for file, size in ((name.tokens, tokens * dtype.itemsize), (name.documents, documents * ENDS.itemsize)):
            path = folder / file
            if path.is_symlink() or not path.is_file() or path.stat().st_size < size:
                raise SpecError(Problem(str(path), f"less than {size:,} bytes", "the file as it was left", ANEW))


def written(progress: Progress) -> Iterator[tuple[ShardName, int, int]]:
    """Every shard, complete or not, with the tokens and documents that were written."""
    index = len(progress.sources)
    for split in SPLITS:
        state: SplitState = getattr(progress.state, split)
        complete = [*(getattr(source, split) for source in progress.sources), state.finished]
        for source, record in enumerate(complete):
            for stream, shards in record.streams().items():
                for number, shard in enumerate(shards):
                    yield ShardName(source, split, stream, number), shard.tokens, shard.documents
        for stream, (tokens, documents) in zip(PAIR if len(state.open) > 1 else (TEXT,), state.open, strict=False):
            yield ShardName(index, split, stream, len(getattr(state.finished, stream))), tokens, documents


def changed(file: Path) -> SpecError:
    """A source file is not what it was."""
    return SpecError(Problem(str(file), "another content than when the preparation began", "the same file", ANEW))
