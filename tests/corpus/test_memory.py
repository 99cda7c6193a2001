"""A corpus twenty times as large as the bound on memory is prepared and read within it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus.small import texts, write_spec

BOUND = 3 << 20
"""Bytes by which the memory may grow from a corpus of a few batches to one of twenty times the bound."""
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from pairform.training.data.corpus.prepare import prepare

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10

small, large, out = sys.argv[1:]
prepare(small, out + "-small")
before = peak()
shards = prepare(large, out)
print(peak() - before)
before = anonymous()
(stream,) = shards.train
numbers = np.random.default_rng(0)
for begin in numbers.integers(0, stream.length - 4096, 2000).tolist():
    assert sum(len(each.tokens) + each.ends for each in stream.fragments(begin, begin + 4096)) == 4096
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["lines", "text"])
def test_memory_does_not_grow_with_the_corpus(kind: str, tmp_path: Path) -> None:
    text = " ".join(texts(200))
    piece = json.dumps({"text": text}) + "\n" if kind == "lines" else text + "\n"
    name = "corpus.jsonl" if kind == "lines" else "corpus.txt"
    files = []
    for folder, size in (("small", 4 << 20), ("large", 20 * BOUND)):
        (tmp_path / folder).mkdir()
        with (tmp_path / folder / name).open("w") as file:
            for _ in range(size // len(piece) + 1):
                file.write(piece)
        files.append(write_spec(tmp_path / folder, sources=[{"files": [name]}], shard_tokens=8 << 20))
    command = [sys.executable, "-c", PROGRAM, *map(str, files), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    prepared, read = map(int, done.stdout.split())
    assert prepared < BOUND
    assert read < BOUND
