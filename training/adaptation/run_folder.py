"""The folder of a run: its recipe, its metrics and its checkpoints.

recipe.json          the recipe, with all defaults
spec.json            the spec of the model
teacher.json         which teacher the model is distilled from, if there is one
data.json            the digest of the shards
metrics.jsonl        one object a line: of every step, and of every evaluation
samples.jsonl        texts that the model generated, where the recipe asks for them
initial/             the model that training started from, if the recipe converts one
wandb.json, wandb/   the run on Weights & Biases, if the recipe asks for one
job.json, jobs/      the last job that was submitted for the run, and submitit's files
companions/          tokenizer and generation settings, for the model that is exported
checkpoints/step-N/  what training resumes from
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.initialisation.execute import convert
from pairform.registry import OutputError, Problem, open_regular, read_json, replace_text, shorten, writing
from pairform.registry.files import PARTIAL
from pairform.registry.run_folders import check_links, is_locked, lock, remove_partials, write_json
from pairform.training.adaptation.companions import keep
from pairform.training.adaptation.preparation import INITIAL, Prepared
from pairform.training.adaptation.recipe import WITHOUT_EFFECT, Recipe
from pairform.training.adaptation.teacher import record_teacher
from pairform.training.checkpoints.folders import latest
from pairform.training.metrics import METRICS, Log, open_log
from pairform.training.parallel import World
from pairform.training.wandb_log import wandb_log

RECIPE, SPEC, DATA, SAMPLES, JOB = "recipe.json", "spec.json", "data.json", "samples.jsonl", "job.json"
CHECKPOINTS, LOCK = "checkpoints", ".lock"
LINE_BYTES = 1 << 20
"""Largest line of metrics that is read; one has about 200 bytes."""


def recorded_recipe(run: Path) -> Recipe:
    """The recipe of a run; `OutputError` if the folder holds no run."""
    file = run / RECIPE
    if not file.is_file():
        raise OutputError(Problem(str(run), f"no {RECIPE}", "the folder of a run, as `pairform adapt run` writes it"))
    return Recipe.read(read_json(file), where=str(file))


def check_resumes(run: Path, recipe: Recipe) -> None:
    """Raise `OutputError` unless `run` is new, empty, or the folder of a run of the same recipe.

    Fields on which the numbers of past steps do not depend may differ.
    """
    if not (run / RECIPE).is_file():
        if run.exists() and (not run.is_dir() or any(item.name != LOCK and PARTIAL not in item.name for item in run.iterdir())):
            raise OutputError(Problem(str(run), "something that is no run", "a new or empty folder, or this recipe's"))
        return
    old, new = recorded_recipe(run).document(), recipe.document()
    changed = [name for name in sorted({*old, *new}) if name not in WITHOUT_EFFECT and old.get(name) != new.get(name)]
    if changed:
        found = f"a run of another recipe: {', '.join(f'{name} is {shorten(old.get(name))}' for name in changed)}"
        remedy = "Resume with that recipe, or choose another folder with --out."
        raise OutputError(Problem(str(run), found, f"{', '.join(shorten(new.get(name)) for name in changed)}", remedy))


def check_continues(run: Path, prepared: Prepared) -> None:
    """Raise `OutputError` if the model or the data is no longer that of the run, or if `run` is in the shards' folder."""
    if prepared.shards.folder.resolve() in run.resolve().parents:
        remedy = "Choose another folder with --out."
        raise OutputError(Problem(str(run), "a place in the folder of the shards", "a folder outside of it", remedy))
    if not (run / DATA).is_file():  # written after the spec, and after the conversion
        return
    remedy = "Resume with the files that the run began with, or choose another folder with --out."
    if load_spec(run / SPEC).document() != prepared.spec.document():
        raise OutputError(Problem(str(run / SPEC), "the spec of another model than the recipe's is now", "the same", remedy))
    if (found := read_json(run / DATA).get("digest")) != prepared.shards.digest:
        expected = f"the digest of {prepared.shards.folder}, {prepared.shards.digest}"
        raise OutputError(Problem(str(run / DATA), f"shards of the digest {shorten(found)}", expected, remedy))


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics or samples, without one that a killed process left incomplete."""
    if not file.is_file():
        return
    with open_regular(file) as stream:
        while line := stream.readline(LINE_BYTES):
            if not line.endswith(b"\n"):
                return
            try:
                found = json.loads(line)
            except ValueError:
                raise OutputError(Problem(str(file), shorten(line), "a JSON object on each line")) from None
            if isinstance(found, dict):
                yield found


def cut_lines(file: Path, step: int) -> None:
    """Drop the lines of steps after `step`, from which training resumes."""
    if file.exists():
        kept = [line for line in lines(file) if isinstance(line.get("step"), int) and line["step"] <= step]
        replace_text(file, "".join(json.dumps(line) + "\n" for line in kept))


@contextlib.contextmanager
def run_folder(folder: Path, prepared: Prepared, world: World) -> Iterator[None]:
    """Hold the folder of a run: locked, with the recipe and, if the recipe converts one, the model that training starts from.

    Raises:
        OutputError: another run holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with world.together("the run's folder"):
            if world.first:  # one process compares digests for all: they may take hours
                if prepared.recipe.data.verify:
                    prepared.shards.verify()
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                check_links(folder)
                stack.enter_context(lock(folder / LOCK, wait=False))
                remove_partials(folder)
                check_resumes(folder, prepared.recipe)
                check_continues(folder, prepared)
                write_json(folder / RECIPE, prepared.recipe.document())  # first: from now on the folder is that of a run
                if prepared.conversion is not None:
                    convert(**prepared.conversion, out=folder / INITIAL)
                begin = prepared.weights if prepared.conversion is None else folder / INITIAL
                keep(folder, begin, prepared.shards.tokenizer)
                write_json(folder / SPEC, prepared.spec.document())
                if prepared.teacher is not None:
                    record_teacher(folder, prepared.teacher)
                write_json(folder / DATA, {"digest": prepared.shards.digest})
        yield


@contextlib.contextmanager
def run_log(folder: Path, recipe: Recipe, world: World, begin: int) -> Iterator[Log]:
    """The log of a run, from step `begin` on. Only the first process writes."""
    with contextlib.ExitStack() as stack:
        log: Log | None = None
        with world.together("the log"):
            if world.first:
                log = stack.enter_context(first_log(folder, recipe, begin))
        yield log or (lambda line: None)


@contextlib.contextmanager
def first_log(folder: Path, recipe: Recipe, begin: int) -> Iterator[Log]:
    """The log of the first process."""
    reached = max((step for line in lines(folder / METRICS) if isinstance(step := line.get("step"), int)), default=0)
    for name in (METRICS, SAMPLES):
        cut_lines(folder / name, begin)
    with contextlib.ExitStack() as stack:
        others: list[Log] = []
        if (chosen := recipe.logging.wandb) is not None:
            kept = lines(folder / METRICS) if begin else ()
            config = recipe.document()
            others.append(stack.enter_context(wandb_log(folder, chosen.project, chosen.name, config, kept, reached)))
        yield stack.enter_context(open_log(folder, recipe.logging.tensorboard, begin, others))


def status_of(run: Path) -> dict[str, Any]:
    """How far a run is: its steps, tokens and last losses, the step that it resumes from, and the last job submitted for it.

    status: running, done, stopped, or submitted if a job was submitted and no step has been made.
    """
    recipe = recorded_recipe(run)
    last: dict[str, dict[str, Any]] = {}
    for line in lines(run / METRICS):
        last[str(line.get("split")) + ("" if "objective" not in line else f" {line['objective']}")] = line
    train = last.get("train", {})
    seconds, tokens = train.get("seconds"), train.get("tokens")
    checkpoint = latest(run / CHECKPOINTS)
    job = read_json(run / JOB) if (run / JOB).exists() else None
    waiting = "submitted" if job is not None and not last else "stopped"
    ended = "done" if checkpoint == recipe.total_steps else waiting
    return {
        "status": "running" if is_locked(run / LOCK) else ended,
        "step": train.get("step", 0),
        "steps": recipe.total_steps,
        "checkpoint": checkpoint,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1) if seconds and tokens else None,
        "job": None if job is None else f"{job.get('cluster')} {job.get('id')}, logs in {job.get('logs')}",
        "mfu": mean_mfu(train, tokens, seconds),
        "losses": {name: line.get("loss") for name, line in last.items()},
    }


def mean_mfu(line: Mapping[str, Any], tokens: Any, seconds: Any) -> float | None:
    """Model FLOPs utilisation of the run so far, from its last line: that of the line, at the mean speed."""
    mfu, speed = line.get("mfu"), line.get("tokens_per_second")
    return round(mfu / speed * tokens / seconds, 4) if mfu and speed and tokens and seconds else None
