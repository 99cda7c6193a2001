"""The throughput and the model FLOPs utilisation of a run."""

import torch

from pairform.training.adaptation.preparation import Prepared
from pairform.training.adaptation.recipe import Recipe
from pairform.training.costs.accelerators import accelerator_of, peak_flops
from pairform.training.costs.throughput import Throughput, row_flops
from pairform.training.loop import Clock
from pairform.training.parallel import World


def throughput_of(prepared: Prepared, world: World, clock: Clock) -> Throughput | None:
    """The throughput of a run from the time of `clock` on; None in processes that log nothing.

    FLOPs are counted once, on the meta device. That takes seconds for a large model, for which the other processes wait here.
    """
    with world.together("counting FLOPs"):
        if not world.first:
            return None
        recipe = prepared.recipe
        peak = device_peak(recipe, world.device)
        flops = row_flops(prepared.spec, recipe.data.objective)
        return Throughput(flops.per_token(), None if peak is None else peak * world.size, clock.tokens, clock.seconds)


def device_peak(recipe: Recipe, device: torch.device) -> float | None:
    """Peak FLOP/s of one device in the recipe's precision; None if it is not known."""
    if recipe.logging.peak_tflops is not None:
        return 1e12 * recipe.logging.peak_tflops
    name = accelerator_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return None if name is None else peak_flops(name, recipe.precision)
