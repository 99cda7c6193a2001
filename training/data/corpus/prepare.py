"""Preparing a corpus: its documents are tokenised once, into a folder of shards."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pairform.registry import InputError, OutputError, Problem, SpecError, replace_text, writing
from pairform.training.data.corpus import staging
from pairform.training.data.corpus.documents import Mark, SourceReader, stamp
from pairform.training.data.corpus.manifest import (
    FORMAT,
    MANIFEST,
    PAIR,
    TEXT,
    TOKENIZER,
    Manifest,
    SourceRecord,
    digest_of,
    read_manifest,
    token_dtype,
)
from pairform.training.data.corpus.progress import FileStamp, Plan, Progress, SourceState, check_equal, check_written
from pairform.training.data.corpus.setup import Setup, read_setup
from pairform.training.data.corpus.shard import sha256_of
from pairform.training.data.corpus.shards import Shards
from pairform.training.data.corpus.spec import CorpusSpec
from pairform.training.data.corpus.workers import Workers
from pairform.training.data.corpus.writing import SourceWriter
from pairform.training.data.globs import find_files

CHECKPOINT = 1 << 26
"""Bytes of source files after which progress is recorded: what a killed process loses at most."""
Report = Callable[[int, int], object]
"""Called with bytes of source files that were read, and the bytes of all."""


def prepare(
    corpus: str | Path, out: str | Path, *, jobs: int = 1, overwrite: bool = False, report: Report | None = None
) -> Shards:
    """Tokenise a corpus into a shard folder.

    A killed preparation is continued by the same call, and the result is the same to the byte, whatever the number of jobs.
    Memory is bounded whatever the corpus: each process holds a few batches of about a megabyte.

    Args:
        corpus: The corpus as JSON (`CorpusSpec`); files are found from its folder.
        out: Folder to write.
        jobs: Number of processes that tokenise; 1 is this process.
        overwrite: Replace a corpus that was prepared from other files or settings.
        report: Called as files are read.

    Returns:
        The folder, opened.

    Raises:
        SpecError: the corpus is invalid, a file cannot be read, or has changed since the preparation began.
        OutputError: the folder cannot be written, holds something else, or another preparation.
        InputError: `jobs` is no positive number, or a process ended.
    """
    if jobs < 1:
        raise InputError(Problem("jobs", str(jobs), "at least 1"))
    file = Path(corpus)
    spec = CorpusSpec.read_file(file)
    setup = read_setup(spec, file.parent)
    files = [named_files(file.parent, source.files, f"sources[{index}].files") for index, source in enumerate(spec.sources)]
    stamps = tuple(tuple(FileStamp(name=name, stamp=stamp(path)) for name, path in each) for each in files)
    plan = Plan(corpus=spec.document(), tokenizer=setup.record, files=stamps)
    with staging.opened(out) as folder:
        preparation = Preparation(plan, spec, setup, files, folder, report)
        preparation.run(jobs, overwrite)
        return Shards.open(folder)


class Preparation:
    """One corpus, on its way into one folder."""

    def __init__(
        self,
        plan: Plan,
        spec: CorpusSpec,
        setup: Setup,
        files: Sequence[Sequence[tuple[str, Path]]],
        out: Path,
        report: Report | None,
    ) -> None:
        self.plan, self.spec, self.setup, self.files, self.out = plan, spec, setup, files, out
        self.whole = sum(each.stamp[0] for source in plan.files for each in source)
        self.read = 0
        self.report = report

    @property
    def staging(self) -> Path:
        return self.out / staging.STAGING

    def run(self, jobs: int, overwrite: bool) -> None:
        progress = self.found(overwrite)
        if progress is None:
            return
        if not (self.staging / MANIFEST).exists():
            chat = any(source.kind == "chat" for source in self.spec.sources)
            with Workers(self.setup, jobs if jobs > 1 or chat else 0) as workers:
                for index in range(len(progress.sources), len(self.spec.sources)):
                    progress = self.source(index, workers, progress)
            self.complete(progress)
        staging.publish(self.out, read_manifest(self.staging))

    def found(self, overwrite: bool) -> Progress | None:
        """The progress to continue from; None if the folder is complete.

        Raises:
            SpecError, OutputError: the folder holds something else, and `overwrite` is false.
        """
        complete = (self.out / MANIFEST).exists()
        if complete and not overwrite:
            self.check_same(read_manifest(self.out))
            if self.staging.exists() and not any(self.staging.glob("*.tokens")):  # killed after its last file was moved
                staging.begin(self.out).rmdir()
            return None
        if self.staging.exists():
            staging.clean(self.staging)
            try:
                progress = Progress.load(self.staging)
                if progress is not None and progress.begun:
                    check_equal(progress, self.plan, self.files, str(self.out))
                    if not (self.staging / MANIFEST).exists():
                        check_written(progress, self.staging, token_dtype(self.setup.vocabulary))
                    return progress
            except SpecError:
                if not overwrite:
                    raise
        elif any(self.out.iterdir()) and not overwrite:
            found = f"files of a prepared corpus without {MANIFEST}"
            raise OutputError(Problem(str(self.out), found, "an empty folder", "`--overwrite` prepares the corpus anew."))
        staging.begin(self.out)
        if self.setup.tokenizer is not None:
            with writing(self.staging), (self.staging / TOKENIZER).open("xb") as file:
                file.write(self.setup.tokenizer)
                file.flush()
                os.fsync(file.fileno())
        progress = Progress(plan=self.plan)
        progress.save(self.staging)
        return progress

    def check_same(self, manifest: Manifest) -> None:
        """`OutputError` if a complete folder was prepared from another corpus."""
        names = [[(record.name, record.bytes) for record in source.files] for source in manifest.sources]
        wanted = [[(each.name, each.stamp[0]) for each in source] for source in self.plan.files]
        same = manifest.corpus == self.plan.corpus and manifest.tokenizer == self.plan.tokenizer and names == wanted
        for source, files in zip(manifest.sources, self.files, strict=False):
            for record, (_, path) in zip(source.files, files, strict=False):
                same = same and sha256_of(path) == record.sha256
                self.move(record.bytes)
        if not same:
            found = "a corpus of other files or settings"
            raise OutputError(Problem(str(self.out), found, "the same corpus", "Choose another folder, or `--overwrite`."))

    def move(self, count: int) -> None:
        self.read += count
        if self.report is not None:
            self.report(count, self.whole)

    def source(self, index: int, workers: Workers, progress: Progress) -> Progress:
        """Write one source."""
        spec, state = self.spec.sources[index], progress.state
        if index == len(progress.sources) and not self.read:
            self.move(sum(each.bytes for source in progress.sources for each in source.files))
        self.move(sum(each.bytes for each in state.files))
        streams = (TEXT,) if spec.kind == "text" else PAIR
        dtype = token_dtype(self.setup.vocabulary)
        reader = SourceReader(index, spec, self.files[index], Mark(*state.mark), state.files, self.move)
        limit, share = self.spec.shard_tokens, self.spec.held_out
        with contextlib.closing(SourceWriter(self.staging, index, streams, dtype, limit, share, state)) as writer:
            saved = self.read
            for encoded, mark in workers.encoded(reader.batches()):
                writer.add(encoded)
                if not encoded.more and self.read - saved >= CHECKPOINT:
                    saved = self.read
                    files = tuple(reader.records[: mark.file])
                    state = SourceState(mark=mark, files=files, train=writer.train.state(), held_out=writer.kept.state())
                    progress = progress.model_copy(update={"state": state})
                    progress.save(self.staging)
                    self.check_space()
            record = SourceRecord(
                name=spec.title,
                kind="text" if spec.kind == "text" else "pairs",
                weight=spec.weight,
                files=tuple(reader.records),
                train=writer.train.finish(),
                held_out=writer.kept.finish(),
                dropped=writer.train.dropped + writer.kept.dropped,
            )
        if not any((record.train.text, record.train.source, record.held_out.text, record.held_out.source)):
            expected = "a conversation with an answer" if spec.kind == "chat" else "a document with text"
            raise SpecError(Problem(f"sources[{index}]", f"no document in {len(self.files[index])} files", expected))
        progress = Progress(plan=progress.plan, sources=(*progress.sources, record))
        progress.save(self.staging)
        return progress

    def check_space(self) -> None:
        """Whether what is left to read will find room, at the rate of what was read."""
        written = sum(file.stat().st_size for file in self.staging.iterdir())
        staging.check_space(self.out, written * (self.whole - self.read) // max(self.read, 1))

    def complete(self, progress: Progress) -> None:
        """Write the manifest."""
        manifest = Manifest(
            format=FORMAT,
            corpus=self.plan.corpus,
            tokenizer=self.plan.tokenizer,
            sources=progress.sources,
            digest="0" * 64,
        )
        document = manifest.document()
        del document["digest"]
        document["digest"] = digest_of(document)
        replace_text(self.staging / MANIFEST, json.dumps(document, indent=2, ensure_ascii=False) + "\n", durable=True)


def named_files(folder: Path, patterns: Sequence[str], where: str) -> list[tuple[str, Path]]:
    """The files that patterns match, by their path relative to `folder`, in the order of these names."""
    home = folder.resolve()
    return sorted((Path(os.path.relpath(file, home)).as_posix(), file) for file in find_files(folder, patterns, where))
