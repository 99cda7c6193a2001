"""A run: a model is loaded, trained by a recipe, and recorded in a folder from which it resumes."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.build import build
from pairform.assemblies.checkpoints.save import load
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry import PairformError, Problem, output_path
from pairform.training.adaptation.checking import check_run
from pairform.training.adaptation.evaluation import evaluate
from pairform.training.adaptation.interruption import ENDING, Interruption, Signals
from pairform.training.adaptation.preparation import INITIAL, Prepared
from pairform.training.adaptation.recipe import Recipe, read_recipe
from pairform.training.adaptation.run_folder import CHECKPOINTS, run_folder, run_log
from pairform.training.adaptation.speed import throughput_of
from pairform.training.checkpoints import load_checkpoint, prune, resume_step, save_checkpoint
from pairform.training.distillation import Terms, open_teacher
from pairform.training.loop import Clock, Loop
from pairform.training.optimization.averaging import MovingAverage
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.optimization.spikes import Spikes
from pairform.training.parallel import World, computing, environment, one_voice, shard, start
from pairform.training.step import Computation, MakeTerms, deterministic, no_terms


class InterruptedRunError(PairformError):
    """A signal ended the run after a checkpoint."""


def adapt(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    source: str | Path | None = None,
    signals: Signals = ENDING,
) -> Path:
    """Train a model by a recipe, or resume the run in `out`. Under torchrun, call it in every process.

    Args:
        recipe: A recipe, its document, or a JSON file.
        out: Folder of the run: new, empty, or of an earlier run of the same recipe.
        source: Folder to which the data's path is relative. Default: the recipe file's, or the working directory.
        signals: Those that end the run after a checkpoint, SIGINT, SIGTERM and SIGHUP, and those at which it writes one.

    Returns:
        The folder of the run.

    Raises:
        PairformError: the recipe does not fit its model, its data or the processes, or `out` holds something else; in processes
            other than the one that reports it a `PeerError`.
        InterruptedRunError: in all processes, a signal ended the run, which can be resumed.
        DivergedError: the loss is not finite.
    """
    _, size, local = environment()
    with one_voice(local):
        folder = output_path(out)
        read, place = read_recipe(recipe)
        prepared = check_run(read, place if source is None else Path(source), folder, size)
    device = None if read.device == "auto" else read.device
    with (
        Interruption(signals) as interruption,
        start(read.parallel.shard, read.parallel.replicate, device=device) as world,
        run_folder(folder, prepared, world),
        torch_settings(world, read.threads),
    ):
        interrupted: InterruptedRunError | None = None
        try:
            train(prepared, folder, world, interruption)
        except InterruptedRunError as error:  # in all processes at once: none has failed
            interrupted = error
    if interrupted is not None:
        raise interrupted
    return folder


@contextlib.contextmanager
def torch_settings(world: World, threads: int | None) -> Iterator[None]:
    """torch's settings while a run trains: threads, and on a CPU deterministic algorithms, to resume bit for bit."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        with deterministic() if world.device.type == "cpu" else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


def train(prepared: Prepared, folder: Path, world: World, interruption: Interruption) -> None:
    """Train the model of a run from its last checkpoint on, or from the beginning."""
    recipe, checkpoints = prepared.recipe, folder / CHECKPOINTS
    model = open_model(prepared, folder, world)
    optimizers = make_optimizer(model, recipe.optimizer, fused=True)
    average = None if recipe.ema is None else MovingAverage(model, recipe.ema)
    begin = resume_step(checkpoints) or 0
    state: dict[str, Any] = load_checkpoint(checkpoints, begin, model, optimizers.each) if begin else {}
    computation = Computation(world.device, partial(computing, recipe.precision, world))
    training = replace(computation, terms=terms_of(prepared, world))
    clock = Clock(state.get("seconds", 0.0), state.get("tokens", 0))
    spikes = None if recipe.skip_step is None else Spikes(recipe.skip_step, **state.get("spikes", {}))
    if average is not None and state:
        average.values = state["average"]
    with run_log(folder, recipe, world, begin) as log, interruption.training():

        def assess(done: int) -> None:
            for line in evaluate(model, prepared, computation, world, folder, done, average):
                log({"step": done, "split": "valid"} | line)

        def after(done: int) -> None:
            last, asked = done == recipe.total_steps, interruption.asked(world)
            if last and recipe.evaluation is not None:
                assess(done)
            if last or asked.stop or asked.save or done % recipe.checkpoint.every == 0:
                save_checkpoint(checkpoints, done, model, optimizers.each, state_of(clock, spikes, average))
                with world.together("checkpoint"):
                    if world.first:
                        prune(checkpoints, recipe.checkpoint.keep, recipe.checkpoint.keep_every)
            if asked.stop and not last:
                remedy = "Run the same command to continue."
                raise InterruptedRunError(
                    Problem(str(folder), f"a signal after step {done}", f"{recipe.total_steps} steps", remedy)
                )

        Loop(
            model,
            optimizers,
            recipe.total_steps,
            recipe.schedule,
            batches=lambda first, last: prepared.batches.batches(first, last, world.rank, world.size),
            log=log,
            world=world,
            clock=clock,
            computation=training,
            clip=None if recipe.clip == "none" else recipe.clip,
            phases=recipe.phases,
            frozen=recipe.frozen,
            average=average,
            spikes=spikes,
            throughput=throughput_of(prepared, world, clock),
            seed=recipe.seed,
            evaluate_every=None if recipe.evaluation is None else recipe.evaluation.every,
            evaluate=assess,
            after=after,
        ).run(begin)


def state_of(clock: Clock, spikes: Spikes | None, average: MovingAverage | None) -> dict[str, Any]:
    """What a checkpoint holds besides the model and its optimisers."""
    state: dict[str, Any] = {"seconds": clock.seconds, "tokens": clock.tokens}
    if spikes is not None:
        state["spikes"] = {"recent": list(spikes.recent), "skipped": spikes.skipped}
    return state if average is None else state | {"average": average.values}


def terms_of(prepared: Prepared, world: World) -> MakeTerms:
    """The terms of the loss besides the cross-entropy."""
    recipe, found = prepared.recipe, prepared.teacher
    teacher = None if found is None else open_teacher(found.folder, recipe.precision, world, compiled=recipe.compile)
    if teacher is None and not recipe.z_loss:
        return no_terms
    return Terms(world.device, recipe.z_loss, recipe.distillation, teacher).of


def open_model(prepared: Prepared, folder: Path, world: World) -> Model:
    """The model in training mode, on this process's device, sharded over all processes."""
    recipe = prepared.recipe
    weights = folder / INITIAL if prepared.conversion is not None else prepared.weights
    if weights is None:
        model = shard(build(prepared.spec, seed=recipe.seed), world.mesh, recipe.precision)
    elif world.mesh is None:
        model = shard(load(weights), None, recipe.precision)
    else:
        model = load(weights, mesh=world.mesh, precision=recipe.precision)
    model.generation = GenerationSpec()  # samples of held-out sources are greedy, whatever the folder says
    if recipe.activation_checkpointing != "none":
        model.checkpoint_layers(recipe.activation_checkpointing)
    if recipe.compile:
        model.compile_layers()
    return model.to(world.device).train()
