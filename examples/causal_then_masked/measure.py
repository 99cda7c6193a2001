"""Measure a model in a process of its own, with one thread, so that several can be measured at a time."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

import pairform
from examples.adaptation.measures import read_texts, representation
from examples.adaptation.run import MODELS
from examples.causal_then_masked import spans

PROBED, ASKED = 200, 3000
"""Windows for the linear probe and for the span task, as many to fit as to test."""


def measured_by_a_process(out: Path, name: str, seed: int, quick: bool) -> None:
    """Measure a model, unless it has been."""
    if not file_of(out, name).is_file():
        words = ["--out", str(out), "--name", name, "--seed", str(seed), *(["--quick"] if quick else [])]
        subprocess.run([sys.executable, "-m", __name__, *words], check=True)


def measured(out: Path, name: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(file_of(out, name).read_text("utf-8"))
    return found


def file_of(out: Path, name: str) -> Path:
    return out / "measures" / f"{name}.json"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--name", required=True, help="name of the model")
    options.add_argument("--seed", type=int, default=0, help="of the span task's head and order")
    options.add_argument("--quick", action="store_true", help="a few steps and texts: shows that the program works")
    given = options.parse_args()
    torch.set_num_threads(1)
    model = pairform.load(given.out / MODELS / given.name)
    probed, asked = (read_texts(given.out, 20 if given.quick else count) for count in (PROBED, ASKED))
    fitted, tested = map(spans.ask, asked)
    found = {
        "linear probe": representation(model, *probed),
        "span task": spans.exact_match(model, fitted, tested, given.seed, 2 if given.quick else spans.STEPS),
    }
    file = file_of(given.out, given.name)
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found) + "\n", "utf-8")
    partial.replace(file)


if __name__ == "__main__":
    main()
