"""Evaluation of a run: held-out loss, and samples of what the model generates."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.modeling.model import Model
from pairform.registry import writing
from pairform.training.adaptation.preparation import OWN, Prepared
from pairform.training.adaptation.recipe_parts import SampleSpec
from pairform.training.adaptation.run_folder import SAMPLES
from pairform.training.data.objectives import IGNORED
from pairform.training.data.stream import Batches
from pairform.training.optimization.averaging import MovingAverage
from pairform.training.parallel import World
from pairform.training.step import Computation


@contextlib.contextmanager
def evaluating(model: Model, average: MovingAverage | None) -> Iterator[None]:
    """Evaluation mode without gradients, with the averaged weights if there are some."""
    model.eval()
    try:
        with torch.no_grad(), contextlib.nullcontext() if average is None else average.applied(model):
            yield
    finally:
        model.train()


def held_out_loss(model: Model, batches: Batches, computation: Computation, world: World) -> dict[str, Any]:
    """The mean loss over the label tokens of all held-out rows, and their number."""
    batch = batches.batch(0, world.rank, world.size)
    total = torch.zeros((), device=world.device)
    for micro in batch.micro:
        inputs = {name: tensor.to(world.device) for name, tensor in micro.inputs.items()}
        with computation.context():
            total += model(**inputs, loss_tokens=batch.labels).loss.float()
    return {"loss": world.sum(total).item(), "labels": batch.labels}


def evaluate(
    model: Model,
    prepared: Prepared,
    computation: Computation,
    world: World,
    folder: Path,
    done: int,
    average: MovingAverage | None,
) -> Iterator[dict[str, Any]]:
    """A line of metrics for each objective: with its name, unless it is the recipe's own. Samples are written to the folder."""
    with evaluating(model, average):
        for name, batches in prepared.held_out.items():
            line = held_out_loss(model, batches, computation, world)
            yield ({"objective": name} if name else {}) | line
        settings = prepared.recipe.evaluation
        if settings is not None and settings.generate is not None:
            with computation.context():
                texts = list(samples(model, prepared, settings.generate, world))
            if world.first:
                with writing(folder / SAMPLES), (folder / SAMPLES).open("a", encoding="utf-8") as file:
                    for source, text in texts:
                        print(json.dumps({"step": done, "source": source, "generated": text}), file=file)


def samples(model: Model, prepared: Prepared, settings: SampleSpec, world: World) -> Iterator[tuple[str, str]]:
    """Held-out sources, and what the model generates from each, as text."""
    batches = prepared.held_out[OWN]
    rows, _ = batches.read(0)
    for source, target in [row[0] for row in rows[: settings.prompts] if row]:
        prompt = source if model.spec.encoder is not None else source[: int((target != IGNORED).argmax())]
        ids = torch.tensor(prompt[None], device=world.device, dtype=torch.long)
        made = model.generate(ids, torch.ones_like(ids), max_new_tokens=settings.max_new_tokens, do_sample=False)[0]
        new = made[1:] if model.spec.encoder is not None else made[len(prompt) :]
        yield prepared.sources.decode(prompt.tolist()), prepared.tokens.decode(new.tolist())
