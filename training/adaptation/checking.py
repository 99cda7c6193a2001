"""All checks of a run before anything is written: its recipe, its folder, its processes, its disk."""

from pathlib import Path

from pairform.assemblies.checkpoints.writing.folder import check_space
from pairform.assemblies.specs.model import ModelSpec
from pairform.training.adaptation.preparation import Prepared, prepare
from pairform.training.adaptation.recipe import Recipe
from pairform.training.adaptation.run_folder import CHECKPOINTS, check_continues, check_resumes
from pairform.training.checkpoints.folders import steps
from pairform.training.costs.memory import Setting, checkpoint_bytes
from pairform.training.parallel import check_shape


def check_run(recipe: Recipe, source: Path, folder: Path, size: int) -> Prepared:
    """Validate a run of this many processes; see `adapt`."""
    check_resumes(folder, recipe)
    check_shape(size, recipe.parallel.shard, recipe.parallel.replicate)
    prepared = prepare(recipe, source, folder, size)
    check_continues(folder, prepared)
    check_disk(recipe, prepared.spec, folder / CHECKPOINTS)
    return prepared


def check_disk(recipe: Recipe, spec: ModelSpec, checkpoints: Path) -> None:
    """Check that the disk has room for the last checkpoints, `checkpoint.keep` and one that is being written."""
    there = steps(checkpoints)
    if recipe.total_steps in there:
        return
    made = -(-recipe.total_steps // recipe.checkpoint.every)
    size = checkpoint_bytes(
        spec, Setting(recipe.precision, recipe.optimizer, 1, (), ema=recipe.ema is not None, frozen=recipe.frozen)
    )
    missing = max(1, min(recipe.checkpoint.keep + 1, made) - len(there))
    check_space(checkpoints, size * missing, f"for {missing} checkpoint{'s' * (missing > 1)}")
