"""Cold starts: import, list the presets, and generate the first token of a small model, compared with transformers.

python -m benchmarks.start [--runs 10] [--quick]
"""

import argparse
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Run, peers, run, save, summary

NAMES = "load, save, build, plan, convert, verify, inspect, load_spec, diff, patch, Model"
MODEL = {"vocabulary": 32000, "encoder": {"depth": 4}, "decoder": {"depth": 4}}
"""Patch on t5gemma-s-s: 52 MB of float32 weights, not counting embeddings."""
SMALL = {"width": 96, "depth": 2}
QUICK = {"vocabulary": 500, "encoder": SMALL, "decoder": SMALL}
IDS = "torch.tensor([[2, 5, 17, 3]])"
PLAIN = "import torch"
OURS = f"import torch, pairform; pairform.load({{folder!r}}).generate({IDS}, max_new_tokens=1)"
THEIRS = (
    "import torch; from transformers import T5GemmaForConditionalGeneration as Model; "
    f"Model.from_pretrained({{folder!r}}).generate({IDS}, max_new_tokens=1, do_sample=False)"
)


def make(folder: Path, changes: dict[str, Any]) -> Path:
    """Write a small T5Gemma in the transformers format, in a separate process so that its memory is freed."""
    code = (
        "import pairform; spec = pairform.patch(pairform.load_spec('t5gemma-s-s'), "
        f"{changes!r}); pairform.save(pairform.build(spec, seed=0), {str(folder)!r}, format='transformers')"
    )
    run([sys.executable, "-c", code])
    return folder


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="rounds, after a warm-up round")
    parser.add_argument("--quick", action="store_true", help="run once, to check that it works; saves no result")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="a start does not use a GPU")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(make(Path(scratch) / "model", QUICK if arguments.quick else MODEL))
        used = "; ".join(f"pairform.{name}" for name in NAMES.split(", "))
        commands = {
            "import_torch": [sys.executable, "-c", PLAIN],
            "import_pairform": [sys.executable, "-c", f"{PLAIN}, pairform; {used}"],
            "presets": [sys.executable, "-m", "pairform", "presets"],
            "first_token": [sys.executable, "-c", OURS.format(folder=folder)],
            "transformers_first_token": [sys.executable, "-c", THEIRS.format(folder=folder)],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for turn in range(1 if arguments.quick else arguments.runs + 1):
            for name, command in commands.items():
                done = run(command, OMP_NUM_THREADS="2", PYTHONDONTWRITEBYTECODE="")  # compiled once, as where installed
                if turn or arguments.quick:
                    runs[name].append(done)
    save("start", result(runs), None if arguments.quick else RESULTS)


def result(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Minima and all measurements. The minimum is the best estimate, because other load on the machine only adds time."""
    least = {name: min(each.seconds for each in found) for name, found in runs.items()}
    pairs = zip(runs["transformers_first_token"], runs["first_token"], strict=True)
    return {
        "what": "cold processes: import torch; import torch, pairform and name its functions; pairform presets; import, load "
        "and generate one token of a small T5Gemma, against transformers",
        "machine": {**peers(2), "torchao": find_spec("torchao") is not None},
        "least_seconds": {name: round(seconds, 3) for name, seconds in least.items()},
        "import_beyond_torch_seconds": round(least["import_pairform"] - least["import_torch"], 3),
        "first_token_median_ratio": round(statistics.median(theirs.seconds / ours.seconds for theirs, ours in pairs), 3),
        **{name: summary(found) for name, found in runs.items()},
    }


if __name__ == "__main__":
    main()
