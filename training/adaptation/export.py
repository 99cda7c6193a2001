"""The model of a run as a folder: a checkpoint's weights or an average, with the tokenizer that training started from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.checkpoints.save import tensor_entry
from pairform.assemblies.checkpoints.unwrapping import spec_tensors
from pairform.assemblies.checkpoints.writing.output import Format, Output
from pairform.assemblies.modeling.model import Model
from pairform.registry import OutputError, Problem
from pairform.training.adaptation.companions import kept
from pairform.training.adaptation.recipe import Recipe
from pairform.training.adaptation.run_folder import CHECKPOINTS, SPEC, lines, recorded_recipe
from pairform.training.checkpoints import load_weights
from pairform.training.checkpoints.folders import steps
from pairform.training.metrics import METRICS
from pairform.training.optimization.averaging import mean

AVERAGE = "state.average"
"""The place of a moving average in a checkpoint."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    average: bool = True,
    format: Format = "pairform",
    overwrite: bool = False,
) -> Path:
    """Write the model of a run as a folder that `pairform.load` reads.

    Args:
        run: The folder of a run, which may still be going on.
        out: A new or empty folder.
        step: The checkpoint to export. Default: the last.
        average: Export the average that the recipe names, if it names one.
        format: "pairform" or "transformers".
        overwrite: Replace a model in `out`.

    Raises:
        OutputError: there is no such checkpoint, or too few to average; or the folder cannot be written.
        SpecError: transformers cannot express the model.
        CheckpointError: a checkpoint is damaged.
    """
    folder = Path(run)
    recipe = recorded_recipe(folder)
    found = [each for each in steps(folder / CHECKPOINTS) if step is None or each <= step]
    if not found or (step is not None and found[-1] != step):
        known = ", ".join(map(str, steps(folder / CHECKPOINTS))) or "none yet"
        raise OutputError(
            Problem(str(folder), f"no checkpoint of step {step}" if step else "no checkpoint", f"one of: {known}")
        )
    model = build(load_spec(folder / SPEC), dtype=torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32)
    load_averaged(model, folder / CHECKPOINTS, recipe if average else None, found)
    entries = [tensor_entry(name, tensor) for name, tensor in spec_tensors(model).items()]
    origin = {"origin": "adapt", "step": found[-1], "recipe": recipe.document(), "metrics": last_metrics(folder, found[-1])}
    Output(out, format, overwrite=overwrite).write(model.spec, entries, origin, kept(folder))
    return Path(out)


def last_metrics(run: Path, step: int) -> list[dict[str, Any]]:
    """The last line of training and of each evaluation up to a step."""
    last: dict[object, dict[str, Any]] = {}
    for line in lines(run / METRICS):
        if isinstance(at := line.get("step"), int) and at <= step:
            last[line.get("split"), str(line.get("objective"))] = line
    return list(last.values())


def load_averaged(model: Model, checkpoints: Path, recipe: Recipe | None, found: list[int]) -> None:
    """Load the last of the checkpoints into a model, or the average that a recipe names."""
    chosen = None if recipe is None else recipe.average
    if chosen is None:
        load_weights(checkpoints, found[-1], model)
    elif chosen.ema is not None:
        load_weights(checkpoints, found[-1], model, AVERAGE)
    else:
        count = chosen.checkpoints or 1
        if len(found) < count:
            raise OutputError(Problem(str(checkpoints), f"{len(found)} checkpoints", f"{count}, to average them"))
        parameters = dict(model.named_parameters())

        def weights(step: int) -> dict[str, Tensor]:
            load_weights(checkpoints, step, model)
            return {name: parameter.detach() for name, parameter in parameters.items()}

        averaged = mean(weights(step) for step in found[-count:])
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(averaged[name])
