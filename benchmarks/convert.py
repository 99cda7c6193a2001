"""Conversion of a full-size pair, compared with copying the same number of bytes.

Two Gemma 2 folders with random bf16 weights become an encoder-decoder; then `cp -r` copies the result, and so on in turn. Both
start from the same state: the page cache holds only the input of the command that is timed, no writes are pending, and the
target does not exist.

    python -m benchmarks.convert [--preset gemma-2-2b] [--runs 3] [--folder DIR] [--quick]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import RESULTS, run, save, summary
from benchmarks.sources import write_source


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gemma-2-2b", help="the shapes of both sources")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs, after a warm-up pair")
    parser.add_argument("--folder", type=Path, default=None, help="working folder: needs about 6 times the size of a source")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to check that it works; saves no result")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="conversion does not use a GPU")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.quick:
            arguments.runs, arguments.preset = 1, str(folder / "small.json")
            small = {"extends": "gemma-2-2b", "vocabulary": 500, "decoder": {"width": 96, "depth": 2}}
            Path(arguments.preset).write_text(json.dumps(small))
        for seed, role in enumerate(("encoder", "decoder")):
            write([str(folder / role), arguments.preset, str(seed)], apart=not arguments.quick)
        convert = [sys.executable, "-m", "pairform", "convert", "--out", str(folder / "out")]
        convert += ["--encoder", str(folder / "encoder"), "--decoder", str(folder / "decoder")]
        converts, copies = [], []
        for turn in range(arguments.runs + (not arguments.quick)):
            shutil.rmtree(folder / "out", ignore_errors=True)
            prepare([folder / "encoder", folder / "decoder"], [folder / "copy"])
            converted = run(convert)
            shutil.rmtree(folder / "copy", ignore_errors=True)
            prepare([folder / "out"], [folder / "encoder", folder / "decoder"])
            copied = run(["cp", "-r", str(folder / "out"), str(folder / "copy")])
            ratio = converted.seconds / copied.seconds
            print(f"convert {converted.seconds:.1f} s, cp {copied.seconds:.1f} s, ratio {ratio:.2f}", flush=True)
            if turn or arguments.quick:
                converts.append(converted)
                copies.append(copied)
        written = sum(file.stat().st_size for file in (folder / "out").iterdir())
    ratios = [round(ours.seconds / theirs.seconds, 3) for ours, theirs in zip(converts, copies, strict=True)]
    save(
        f"convert-{arguments.preset}",
        {
            "what": f"two {arguments.preset} folders, bf16, to one encoder-decoder, against cp -r of the result",
            "bytes_written": written,
            "convert": summary(converts),
            "cp": summary(copies),
            "ratios": ratios,
            "median_ratio": statistics.median(ratios),
        },
        None if arguments.quick else RESULTS,
    )


def write(words: list[str], *, apart: bool) -> None:
    """Write a source. `apart`: in a separate process, so that its memory does not count for the commands measured here."""
    if apart:
        run([sys.executable, "-m", "benchmarks.sources", *words])
    else:
        write_source(Path(words[0]), words[1], seed=int(words[2]))


def prepare(read: Sequence[Path], forget: Sequence[Path]) -> None:
    """Load the files in `read` into the page cache and evict those in `forget`, after all pending writes."""
    os.sync()
    for path in (path for folder in forget if folder.is_dir() for path in folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for path in (path for folder in read for path in folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


if __name__ == "__main__":
    main()
