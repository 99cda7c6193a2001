"""Preparations that are killed, at whatever moment, and continued: the folder is the same to the byte."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairform.training.data.corpus import documents as reading
from pairform.training.data.corpus import prepare as preparing
from pairform.training.data.corpus.prepare import prepare
from pairform.training.data.corpus.progress import PROGRESS, Progress
from pairform.training.data.corpus.shards import Shards
from pairform.training.data.corpus.staging import STAGING
from tests.broken.damage import refused
from tests.corpus.small import contents, texts, write_corpus, write_lines

KILLED = 9
SEED = 22
STEPS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "open"),
    (Path, "mkdir"),
    (os, "rmdir"),
]
"""What changes the folder, apart from writing into open files."""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources in several files, many batches, shards and checkpoints."""
    monkeypatch.setattr(reading, "BATCH", 300)
    monkeypatch.setattr(preparing, "CHECKPOINT", 700)
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", [{"q": text, "a": text[::-1]} for text in texts(60, seed=ord(name))])
    (tmp_path / "c.txt").write_text("\n".join(texts(40, seed=3)))
    sources = [
        {"files": ["[ab].jsonl", "c.txt"], "field": "q"},
        {"files": ["a.jsonl"], "source": "q", "target": "a"},
    ]
    return write_corpus(tmp_path, texts(5), sources=sources, held_out=0.2, shard_tokens=400)


def killed_at(step: int, call: Callable[[], object]) -> int:
    """Run `call` in a process that dies before its step of that number, with what it has not flushed. How many it took."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        count = 0

        def counted(function: Any) -> Any:
            def step_of(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os._exit(KILLED)
                return function(*arguments, **options)

            return step_of

        for owner, name in STEPS:
            setattr(owner, name, counted(getattr(owner, name)))
        try:
            call()
            os.write(writer, str(count).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        taken = told.read()
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == (0 if taken else KILLED)
    return int(taken or 0)


def test_whenever_it_is_killed_the_result_is_the_same(corpus: Path, tmp_path: Path) -> None:
    """Once or several times, at moments that follow from a seed."""
    whole = tmp_path / "whole"
    steps = killed_at(0, lambda: prepare(corpus, whole))
    assert steps > 60
    wanted = contents(whole)
    numbers = random.Random(SEED)
    for trial in range(15):
        out = tmp_path / f"out{trial}"
        moments = [numbers.randrange(1, steps + 1) for _ in range(1 + trial % 3)]
        print(f"trial {trial}: killed before steps {moments} of {steps}")
        for moment in moments:
            killed_at(moment, lambda out=out: prepare(corpus, out))  # type: ignore[misc]
        prepare(corpus, out)
        assert contents(out) == wanted


def test_an_old_corpus_stays_until_the_new_one_is_whole(corpus: Path, tmp_path: Path) -> None:
    """Killed anywhere: the folder holds the old corpus, the new one, or none that can be opened; never a mixture."""
    wanted = prepare(corpus, tmp_path / "new").digest
    old = write_corpus(tmp_path / "old", texts(30, seed=9), shard_tokens=200)
    begun = prepare(old, tmp_path / "whole").digest
    steps = killed_at(0, lambda: prepare(corpus, tmp_path / "whole", overwrite=True))
    numbers = random.Random(SEED)
    for trial, moment in enumerate([*(steps - number for number in range(8)), *numbers.sample(range(1, steps - 8), 4)]):
        out = tmp_path / f"out{trial}"
        prepare(old, out)
        killed_at(moment, lambda out=out: prepare(corpus, out, overwrite=True))  # type: ignore[misc]
        if (out / "manifest.json").exists():
            shards = Shards.open(out)
            shards.verify()
            assert shards.digest in (begun, wanted)
        prepare(corpus, out, overwrite=True)
        assert contents(out) == contents(tmp_path / "new")


def half(corpus: Path, out: Path) -> Progress:
    """A preparation that was killed in the midst of its first source."""
    moment = 1
    while True:
        killed_at(moment, lambda: prepare(corpus, out))
        progress = Progress.load(out / STAGING) if (out / STAGING).exists() else None
        if progress is not None and progress.state.mark[0] == 1 and progress.state.mark[1] > 0:
            return progress
        assert not (out / "manifest.json").exists()
        moment += 8


def rewrite(file: Path, *, keep_time: bool) -> None:
    """Other content of the same length."""
    before = file.stat()
    file.write_text(file.read_text().replace("fox", "cat"))
    if keep_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl"])
@pytest.mark.parametrize("keep_time", [False, True])
def test_a_file_that_changed_since_is_refused(name: str, keep_time: bool, corpus: Path, tmp_path: Path) -> None:
    """Whether it was read to its end or in part, also if its size and time are those of before."""
    half(corpus, tmp_path / "out")
    rewrite(tmp_path / name, keep_time=keep_time)
    before = contents(tmp_path / "out")
    refused(lambda: prepare(corpus, tmp_path / "out"), name, "another content", "--overwrite")
    assert contents(tmp_path / "out") == before
    prepare(corpus, tmp_path / "out", overwrite=True)
    prepare(corpus, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_file_that_was_only_touched_has_not_changed(corpus: Path, tmp_path: Path) -> None:
    half(corpus, tmp_path / "out")
    os.utime(tmp_path / "a.jsonl")
    prepare(corpus, tmp_path / "out")
    prepare(corpus, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("change", ["corpus file", "list of files"])
def test_another_corpus_does_not_continue_an_interrupted_one(change: str, corpus: Path, tmp_path: Path) -> None:
    half(corpus, tmp_path / "out")
    if change == "corpus file":
        corpus.write_text(corpus.read_text().replace("400", "500"))
    else:
        (tmp_path / "b.jsonl").rename(tmp_path / "d.jsonl")
        corpus.write_text(corpus.read_text())
    refused(lambda: prepare(corpus, tmp_path / "out"), "interrupted preparation", change, "--overwrite")
    prepare(corpus, tmp_path / "out", overwrite=True)
    prepare(corpus, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_partial_files_that_were_damaged_are_refused(corpus: Path, tmp_path: Path) -> None:
    half(corpus, tmp_path / "out")
    file = next((tmp_path / "out" / STAGING).glob("000-train-00000.tokens"))
    file.write_bytes(file.read_bytes()[:5])
    refused(lambda: prepare(corpus, tmp_path / "out"), file.name, "less than", "--overwrite")
    (tmp_path / "out" / STAGING / PROGRESS).write_text("{")
    refused(lambda: prepare(corpus, tmp_path / "out"), PROGRESS)
    prepare(corpus, tmp_path / "out", overwrite=True)
    prepare(corpus, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_workers_end_with_a_killed_preparation(tmp_path: Path) -> None:
    """And the command continues from a checkpoint."""
    program = "from pairform.training.data.corpus import documents, prepare; documents.BATCH = 2000; prepare.CHECKPOINT = 4000;"
    program += "from pairform.cli.main import main; main()"
    corpus = write_corpus(tmp_path, texts(60_000, longest=40), shard_tokens=100_000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, "data", "prepare", str(corpus), "--out", str(out), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (out / STAGING / "000-train-00002.tokens").exists():
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.read()  # which ends when the last worker has closed it
    progress = Progress.load(out / STAGING)
    assert progress is not None
    assert progress.state.mark[1] > 0
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    prepare(corpus, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_two_preparations_do_not_write_one_folder(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    told = []

    def report(count: int, whole: int) -> None:
        told.append(refused(lambda: prepare(corpus, out), "another preparation in progress"))

    prepare(corpus, out, report=report)
    assert told


def test_a_corpus_that_was_mended_before_anything_was_written_is_prepared(corpus: Path, tmp_path: Path) -> None:
    mended = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text("no JSON\n" + mended)
    refused(lambda: prepare(corpus, tmp_path / "out"), "a.jsonl: line 1")
    (tmp_path / "a.jsonl").write_text(mended)
    prepare(corpus, tmp_path / "out")
    prepare(corpus, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
