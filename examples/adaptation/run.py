"""Does initialisation pay? Pairs that are converted from a small language model, against the same pairs from new weights.

A language model of one million parameters and a smaller one are pretrained on the sources of Python's standard library. Pairs
of equal and of unequal size are adapted with PrefixLM and with UL2, each with three seeds: converted, converted with a phase in
which only cross-attention trains, and from new weights. Run it from the repository's root:

    python -m examples.adaptation.run --out proof [--jobs 2] [--quick]

It takes about 40 minutes on two cores. After an interruption, the same command continues. The results are in
`proof/results.json`, and as a page in `proof/results.md`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pairform
from examples.adaptation import measures, page
from examples.adaptation.texts import write_texts

HERE = Path(__file__).parent
RUNS, MODELS = "runs", "models"
SIZES = ("large", "small")
PAIRS = {"equal": ("large", "large"), "unequal": ("large", "small")}
WARM_UP = 32
"""Steps in which only cross-attention trains."""
STARTS = ("converted", "converted, warm-up", "new")
OBJECTIVES = {
    "prefix_lm": {"name": "prefix_lm", "source": 96, "target": 64},
    "ul2": {"name": "ul2", "window": 160},
}
SEEDS = (0, 1, 2)
NEW_RATE = 0.008
"""New weights learn fastest at this one of 1, 2, 4 and 8 thousandths, converted ones at that of `adapt.json`."""
QUICK = {"steps": 4, "batch": {"tokens": 640, "micro": 4}, "schedule": {"warmup": 1}, "evaluation": {"every": 2, "rows": 4}}
"""Changes to every recipe that show that this program works. The results mean nothing."""


@dataclass(frozen=True)
class Run:
    """One adaptation."""

    pair: str
    objective: str
    start: str
    seed: int

    @property
    def name(self) -> str:
        return "-".join((self.pair, self.objective, self.start.replace(", ", "-"), str(self.seed)))

    def recipe(self) -> dict[str, Any]:
        """`adapt.json` with what is different in this run."""
        encoder, decoder = PAIRS[self.pair]
        recipe = json.loads((HERE / "adapt.json").read_text("utf-8"))
        recipe |= {
            "model": {"convert": {"encoder": f"{MODELS}/{encoder}", "decoder": f"{MODELS}/{decoder}", "seed": self.seed}},
            "seed": self.seed,
        }
        recipe["data"]["objective"] = OBJECTIVES[self.objective]
        # UL2, too, is measured as PrefixLM
        recipe["evaluation"]["objectives"] = {"as prefix_lm": OBJECTIVES["prefix_lm"]}
        if self.start == "new":
            recipe |= {"model": f"{self.pair}.json"}
            recipe["optimizer"]["learning_rate"] = NEW_RATE
        if self.start == "converted, warm-up":
            recipe["phases"] = [{"steps": WARM_UP, "train": ["*cross_attention*"]}]
        return recipe


Results = list[dict[str, Any]]


def main() -> None:
    from_command_line(__doc__, prove, page.write)


def from_command_line(
    description: str | None, measure: Callable[[Path, int, bool], Results], write: Callable[[Results, Path], object]
) -> None:
    """Measure and write what was found, as JSON and with `write`, as the words of the command ask."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options.add_argument("--quick", action="store_true", help="a few steps, one seed: shows that the program works")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = measure(given.out.absolute(), given.jobs, given.quick)
    (given.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    write(results, given.out)


def prove(out: Path, jobs: int, quick: bool) -> Results:
    """The results of the pretrained model and of all runs."""
    write_texts(out)
    pairform_command(out, "data", "prepare", "corpus.json", "--out", "shards")
    runs = [Run(*each) for each in product(PAIRS, OBJECTIVES, STARTS, SEEDS[:1] if quick else SEEDS)]
    pretraining = json.loads((HERE / "pretrain.json").read_text("utf-8"))
    with ThreadPoolExecutor(jobs) as pool:
        made = [pool.submit(train, out, name, pretraining | {"model": str(HERE / f"{name}.json")}, quick) for name in SIZES]
        wait(made)
        for pair, (encoder, decoder) in PAIRS.items():
            spec = pairform.plan(encoder=out / MODELS / encoder, decoder=out / MODELS / decoder).spec
            (out / f"{pair}.json").write_text(json.dumps(spec.document()), "utf-8")
        wait([pool.submit(train, out, run.name, run.recipe(), quick) for run in runs])
    texts = measures.read_texts(out, 20 if quick else 200)
    found = [{"model": "large, pretrained"} | measures.of_model(pairform.load(out / MODELS / "large"), texts)]
    for run in runs:
        model = pairform.load(out / MODELS / run.name)
        found.append(vars(run) | {"losses": losses(out / RUNS / run.name)} | measures.of_model(model, texts))
    return found


def wait(made: list[Future[None]]) -> None:
    """Wait for all, and raise the first error."""
    for each in made:
        each.result()


def train(out: Path, name: str, recipe: dict[str, Any], quick: bool) -> None:
    """Train by a recipe, or resume, in a process of its own, and export the model."""
    if (out / MODELS / name).is_dir():
        return
    if quick:
        for field, change in QUICK.items():
            recipe[field] = recipe[field] | change if isinstance(change, dict) else change
        recipe["phases"] = [phase | {"steps": 1} for phase in recipe.get("phases", [])]
    (out / f"{name}.recipe.json").write_text(json.dumps(recipe), "utf-8")
    pairform_command(out, "adapt", "run", f"{name}.recipe.json", "--out", f"{RUNS}/{name}")
    pairform_command(out, "adapt", "export", f"{RUNS}/{name}", "--out", f"{MODELS}/{name}")
    print(name, flush=True)


def pairform_command(folder: Path, *words: str) -> None:
    """Run a command of pairform in a folder."""
    subprocess.run([sys.executable, "-m", "pairform", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def losses(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Held-out losses after numbers of tokens, by objective."""
    found: dict[str, list[tuple[int, float]]] = {}
    tokens = 0
    for line in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()):
        if line["split"] == "train":
            tokens = line["tokens"]
        else:
            found.setdefault(line.get("objective", "own"), []).append((tokens, line["loss"]))
    return found


if __name__ == "__main__":
    main()
