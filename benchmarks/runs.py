"""Runs of `adapt` for benchmarks: a corpus of random text, and a training loop as `pairform adapt run` makes it."""

import json
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pairform.training.adaptation.preparation import Prepared, prepare
from pairform.training.adaptation.recipe import Recipe
from pairform.training.adaptation.run import open_model, torch_settings
from pairform.training.data.corpus.prepare import prepare as prepare_corpus
from pairform.training.data.stream import Batch
from pairform.training.loop import Loop
from pairform.training.metrics import Log
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.optimization.spikes import SkipSpec, Spikes
from pairform.training.parallel import World
from pairform.training.step import Computation

STEPS = 1_000_000
"""Of a recipe, more than a benchmark makes."""
SHARDS = "shards"


def write_shards(folder: Path, documents: int, tokens: int) -> None:
    """Write shards of random text into `folder`: documents of as many tokens, which are bytes."""
    numbers = random.Random(0)
    letters = string.ascii_lowercase + " "
    lines = (json.dumps({"text": "".join(numbers.choices(letters, k=tokens))}) for _ in range(documents))
    (folder / "corpus.jsonl").write_text("\n".join(lines), "utf-8")
    corpus = {"sources": [{"files": ["corpus.jsonl"], "field": "text"}], "tokenizer": "bytes"}
    (folder / "corpus.json").write_text(json.dumps(corpus), "utf-8")
    prepare_corpus(folder / "corpus.json", folder / SHARDS)


def prepared(model: Path, folder: Path, objective: Mapping[str, Any], batch: Mapping[str, int], **settings: Any) -> Prepared:
    """A validated recipe that trains `model` on the shards in `folder`."""
    document = {
        "model": str(model),
        "data": {"shards": SHARDS, "objective": objective},
        "batch": batch,
        "steps": STEPS,
        "schedule": {"name": "constant"},
        **settings,
    }
    return prepare(Recipe.read(document), folder, folder / "run", 1)


@dataclass
class Training:
    """The loop of a run on one process, without its checkpoints. done: steps so far."""

    loop: Loop
    done: int = 0

    @classmethod
    def of(cls, run: Prepared, folder: Path, device: str, log: Log) -> "Training":
        recipe, world = run.recipe, World(0, 1, torch.device(device))
        model = open_model(run, folder, world)
        assert recipe.clip != "none"
        loop = Loop(
            model,
            make_optimizer(model, recipe.optimizer, fused=True),
            recipe.total_steps,
            recipe.schedule,
            batches=run.batches.batches,
            log=log,
            world=world,
            computation=Computation(world.device),
            clip=recipe.clip,
            spikes=Spikes(SkipSpec(deviations=1e6)),
            seed=recipe.seed,
        )
        return cls(loop)

    def run(self, steps: int) -> None:
        """Train for some steps, with torch's settings of a run."""
        self.loop.steps = self.done + steps
        with torch_settings(self.loop.world, torch.get_num_threads()):
            self.loop.run(self.done)
        self.done += steps


def by_hand(
    forward: Callable[..., Any], optimizer: torch.optim.Optimizer, batch: Batch, clip: float, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A step as one writes it by hand. Its loss, and the norm of its gradients."""
    optimizer.zero_grad()
    total = torch.zeros((), device=device)
    for micro in batch.micro:
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in micro.inputs.items()}
        loss = forward(**inputs).loss * (micro.labels / batch.labels)
        loss.backward()
        total += loss.detach().float()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    return total, norm
