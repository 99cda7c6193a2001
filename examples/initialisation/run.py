"""How many tokens is initialisation worth? Two studies of pairs that start from language models, and from scratch.

Two Gemma 2-like language models are trained on the sources of Python's standard library. The studies adapt pairs of them, of
equal and of unequal size, on this project's own text. Run it from the repository's root:

    python -m examples.initialisation.run --out initialisation [--jobs 2] [--quick]

After an interruption, the same command continues.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.adaptation.run import HERE as LANGUAGE_MODELS
from examples.adaptation.run import SIZES, pairform_command, train
from examples.adaptation.texts import write_texts

HERE = Path(__file__).parent
STUDIES = ("equal", "unequal")
TEXT = ("train.jsonl.gz", "held_out.jsonl.gz")
PHASES = '[{"steps": 1, "train": ["*cross_attention*"]}]'
QUICK = (
    "training.steps=2",
    "training.batch=1",
    "training.evaluate_every=1",
    "variants.new.training.steps=2",
    f"variants.warm-up.training.phases={PHASES}",
    "data.validation=2",
    "seeds=[0]",
)
"""Settings that show that this program works. The results mean nothing."""


def main() -> None:
    from_command_line(__doc__, lambda out, jobs, quick: run_studies(out, HERE, STUDIES, SIZES, jobs, QUICK if quick else ()))


def from_command_line(description: str | None, run: Callable[[Path, int, bool], None]) -> None:
    """Run studies as the words of the command ask."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--jobs", type=int, default=2, help="trials at a time, one thread each")
    options.add_argument("--quick", action="store_true", help="a few steps, one seed: shows that the program works")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run(given.out.absolute(), given.jobs, given.quick)


def run_studies(
    out: Path, folder: Path, studies: Sequence[str], sizes: Sequence[str], jobs: int, quick: Sequence[str] = ()
) -> None:
    """Train language models, run the studies in a folder that start from them, and write the studies' reports.

    quick: settings of the studies with which a run only shows that it works; none for a real one.
    """
    write_texts(out, 20 if quick else None)
    pairform_command(out, "data", "prepare", "corpus.json", "--out", "shards")
    recipe = json.loads((LANGUAGE_MODELS / "pretrain.json").read_text("utf-8"))
    for name in sizes:
        train(out, name, recipe | {"model": str(LANGUAGE_MODELS / f"{name}.json")}, bool(quick))
    for name in TEXT:
        shutil.copy(HERE.parent / "table1" / name, out)
    settings = [word for setting in quick for word in ("--set", setting)]
    for name in studies:
        shutil.copy(folder / f"{name}.json", out)
        pairform_command(out, "study", "run", f"{name}.json", "--jobs", str(jobs), *settings)
        pairform_command(out, "study", "report", name)
        print(out / name / "report.html", flush=True)


if __name__ == "__main__":
    main()
