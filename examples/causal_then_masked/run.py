"""Does an encoder learn more if it begins as a causal language model? Shares of masked language modelling at equal tokens.

Models of one million parameters are trained on the sources of Python's standard library: encoders with masked language
modelling from new weights, and causal language models that continue as encoders, with masked language modelling for the last
half or the last tenth of the same number of tokens. Each has five seeds. Run it from the repository's root:

    python -m examples.causal_then_masked.run --out causal_then_masked [--jobs 2] [--quick]

After an interruption, the same command continues. The results are in `causal_then_masked/results.json`, and as a table with
sentences in `causal_then_masked/results.md`.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.adaptation.run import HERE as LANGUAGE_MODELS
from examples.adaptation.run import MODELS, QUICK, RUNS, Results, from_command_line, losses, pairform_command, train, wait
from examples.adaptation.texts import write_texts
from examples.causal_then_masked import page
from examples.causal_then_masked.measure import measured, measured_by_a_process

HERE = Path(__file__).parent
SHARES = (10, 5, 1)
"""Tenths of the tokens with masked language modelling, at the end; the first is what the others are compared with."""
SEEDS = (0, 1, 2, 3, 4)
STEPS, WARM_UP, RATE = 400, 20, 0.003
"""Steps of a model in all stages, those in which the learning rate of a stage grows, and the rate."""
QUICK_STEPS, FEW = 10, 80
"""Steps and source files of a run that shows that this program works."""
MASKED = {"name": "masked", "window": 160, "rate": 0.3}


@dataclass(frozen=True)
class Arm:
    """A model, trained in one or two stages.

    share: tenths of the tokens with masked language modelling.
    """

    share: int
    seed: int
    quick: bool

    @property
    def name(self) -> str:
        return f"masked-{self.share}-seed{self.seed}"

    @property
    def steps(self) -> int:
        return QUICK_STEPS if self.quick else STEPS

    @property
    def causal_steps(self) -> int:
        return self.steps * (10 - self.share) // 10

    @property
    def causal_name(self) -> str:
        """The language model that it begins as."""
        return f"causal-{self.causal_steps}-seed{self.seed}"

    def recipe(self) -> dict[str, Any]:
        """Of masked language modelling. Over both stages, the rate is constant until the last tenth of all steps."""
        recipe = stage(self.steps - self.causal_steps, self.seed, HERE / "encoder.json", self.quick)
        recipe["schedule"] |= {"name": "wsd", "decay": 1 / self.share}
        recipe["data"]["objective"] = MASKED
        if self.causal_steps:
            recipe["model"] = {"convert": {"encoder": f"{MODELS}/{self.causal_name}", "spec": recipe["model"]}}
        return recipe


def main() -> None:
    from_command_line(__doc__, compare, page.write)


def compare(out: Path, jobs: int, quick: bool) -> Results:
    """The measures of each model."""
    write_texts(out, FEW if quick else None)
    pairform_command(out, "data", "prepare", "corpus.json", "--out", "shards")
    arms = [[Arm(share, seed, quick) for share in SHARES] for seed in (SEEDS[:1] if quick else SEEDS)]
    with ThreadPoolExecutor(jobs) as pool:
        wait([pool.submit(train_causal, out, each) for each in arms])
        wait([pool.submit(train_masked, out, arm) for each in arms for arm in each])
    return [
        {"share": arm.share / 10, "seed": arm.seed, "masked loss": losses(out / RUNS / arm.name)["own"][-1][1]}
        | measured(out, arm.name)
        for each in arms
        for arm in each
    ]


def stage(steps: int, seed: int, model: Path, quick: bool) -> dict[str, Any]:
    """`pretrain.json` with the settings of this comparison, at a constant rate."""
    recipe: dict[str, Any] = json.loads((LANGUAGE_MODELS / "pretrain.json").read_text("utf-8"))
    recipe |= {"model": str(model), "steps": steps, "seed": seed}
    recipe["optimizer"]["learning_rate"] = RATE
    recipe["schedule"] = {"name": "constant", "warmup": min(WARM_UP, steps)}
    recipe["evaluation"]["every"] = steps
    return recipe | ({"batch": QUICK["batch"], "evaluation": {"every": steps, "rows": 4}} if quick else {})


def train_causal(out: Path, arms: Sequence[Arm]) -> None:
    """Train the language model of all arms with one seed, and export it after the steps at which each of them begins."""
    begun = sorted((arm for arm in arms if arm.causal_steps), key=lambda arm: arm.causal_steps)
    last = begun[-1]
    # another seed, so that the next stage reads other text
    recipe = stage(last.causal_steps, 1000 + last.seed, LANGUAGE_MODELS / "large.json", last.quick)
    recipe["data"]["objective"] = {"name": "causal_lm", "window": MASKED["window"]}
    recipe["checkpoint"] = {"every": begun[0].causal_steps, "keep": len(begun)}
    train(out, last.causal_name, recipe, quick=False)
    for arm in begun[:-1]:
        if not (out / MODELS / arm.causal_name).is_dir():
            words = ("--step", str(arm.causal_steps), "--out", f"{MODELS}/{arm.causal_name}")
            pairform_command(out, "adapt", "export", f"{RUNS}/{last.causal_name}", *words)


def train_masked(out: Path, arm: Arm) -> None:
    train(out, arm.name, arm.recipe(), quick=False)
    measured_by_a_process(out, arm.name, arm.seed, arm.quick)


if __name__ == "__main__":
    main()
