"""Everything that can be wrong with a run, checked before its processes connect and any weight is read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.checkpoints.writing.companions import (
    ENCODER_COMPANIONS,
    TOKENIZER,
    resolved,
    tokenizer_file,
)
from pairform.assemblies.initialisation.plan import Plan, Role
from pairform.assemblies.initialisation.planning import plan, target_of
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError, presets
from pairform.training.adaptation.recipe import Recipe
from pairform.training.adaptation.recipe_parts import Converted
from pairform.training.adaptation.teacher import FoundTeacher, find_teacher
from pairform.training.data.batches import Ids
from pairform.training.data.corpus.shards import Shards
from pairform.training.data.objectives import AnyObjective, SequencePairs
from pairform.training.data.stream import Batches
from pairform.training.data.tokenizer_files import Tokenizer, read_tokenizer, read_tokenizer_file
from pairform.training.data.tokens import Tokens, open_tokens
from pairform.training.metrics import check_package
from pairform.training.optimization.phases import check_phases

HELD_OUT_SEED = 0
"""The held-out rows do not depend on the recipe's seed, so that losses of several seeds are comparable."""
ROLES: tuple[Role, ...] = ("encoder", "decoder", "vision")
OWN, INITIAL = "", "initial"
"""The name of the recipe's own objective; and in a run's folder, the model that it has converted."""


@dataclass(frozen=True)
class Prepared:
    """A validated run.

    weights:  folder of the model's weights; None: new weights, or those of `conversion`.
    shards:   the data, whose digests are not compared yet: one process does that for all.
    batches:  of training.
    held_out: of evaluation, by the objective's name in the recipe, `OWN` for `data.objective`; each has one batch.
    tokens:   how text is encoded.
    sources:  how the text that an encoder reads is encoded.
    teacher:  of distillation; None: there is none.
    """

    recipe: Recipe
    spec: ModelSpec
    weights: Path | None
    conversion: Mapping[str, Any] | None
    shards: Shards
    batches: Batches
    held_out: Mapping[str, Batches]
    tokens: Tokens
    sources: Tokens
    teacher: FoundTeacher | None = None


def prepare(recipe: Recipe, source: Path, run: Path, world_size: int) -> Prepared:
    """Validate a recipe against its model, its data and the number of processes.

    Args:
        recipe: The recipe.
        source: Folder to which the data's path is relative.
        run: Folder of the run.
        world_size: Number of processes.

    Raises:
        PairformError: with all problems of the first part that has some.
    """
    spec, weights, conversion = find_model(recipe, run)
    shards = Shards.open(source / recipe.data.shards)
    tokenizer = None if shards.tokenizer is None else read_tokenizer(shards.tokenizer)
    objective, batch = recipe.data.objective, recipe.batch
    settings: dict[str, Any] = {"batch": batch.tokens, "micro": batch.micro, "seed": recipe.seed}
    own = None
    if tokenizer is not None and spec.assembly == "encoder_decoder" and (file := encoder_tokenizer(weights, conversion)):
        own = read_tokenizer(file, "model.encoder_tokenizer")
    settings["encoder_tokenizer"] = own
    batches = Batches(spec, objective, streams(shards, objective, "train"), tokenizer, **settings)
    held_out = dict(open_held_out(recipe, spec, shards, (tokenizer, own), world_size))
    problems = [*batches.check_world(world_size), *check_model(recipe, spec)]
    if own is not None and recipe.distillation is not None:
        found = "a teacher of a model whose encoder has a tokenizer of its own"
        problems.append(Problem("distillation", found, "a model with one tokenizer, in which both read the same sources"))
    if problems:
        raise SpecError(problems)
    if recipe.logging.tensorboard:
        check_package("tensorboardX", "logging.tensorboard")
    if recipe.logging.wandb is not None:
        check_package("wandb", "logging.wandb", None)
    teacher = None
    if recipe.distillation is not None:
        teacher = find_teacher(recipe.distillation.teacher, spec, shards.tokenizer, model_tokenizer(weights, conversion), run)
    tokens = open_tokens(Ids.of(spec, None if own is None else "decoder"), tokenizer)
    read = tokens if own is None else open_tokens(Ids.of(spec, "encoder"), own)
    return Prepared(recipe, spec, weights, conversion, shards, batches, held_out, tokens, read, teacher)


def encoder_tokenizer(weights: Path | None, conversion: Mapping[str, Any] | None) -> Path | None:
    """The file of the tokenizer that the model's encoder has for itself; None if both stacks read the same tokens."""
    if conversion is None:
        return None if weights is None else resolved(weights, ENCODER_COMPANIONS[0])
    files = []
    for part in ("encoder", "decoder"):
        if conversion[part] is None:
            return None
        folder = find_folder(conversion[part], conversion["revisions"].get(part))
        files.append(resolved(folder, tokenizer_file(folder, part)))
    contents = [None if file is None else read_tokenizer_file(file, "model.convert") for file in files]
    return None if None in contents or contents[0] == contents[1] else files[0]


def model_tokenizer(weights: Path | None, conversion: Mapping[str, Any] | None) -> Path | None:
    """The tokenizer file of the folder that the model's weights come from, in a conversion the decoder's, if it has one."""
    if conversion is not None and (ref := conversion["decoder"]) is not None:
        weights = find_folder(ref, conversion["revisions"].get("decoder"))
    return weights / TOKENIZER if weights is not None and (weights / TOKENIZER).is_file() else None


def find_model(recipe: Recipe, run: Path) -> tuple[ModelSpec, Path | None, Mapping[str, Any] | None]:
    """The spec of the recipe's model, and where its weights come from: a folder, or the arguments of a conversion.

    A run that has converted its model before does not read the sources again.
    """
    if isinstance(recipe.model, Converted):
        if (run / INITIAL).is_dir():
            return load_spec(run / INITIAL), run / INITIAL, None
        arguments = recipe.model.convert.arguments
        made: Plan = plan(**arguments)
        return made.spec, None, arguments
    if recipe.model in presets() or Path(recipe.model).is_file():
        return load_spec(recipe.model), None, None
    folder = find_folder(recipe.model)
    return load_spec(folder), folder, None


def spec_of(recipe: Recipe) -> ModelSpec:
    """The spec of the recipe's model, from configurations alone."""
    model = recipe.model
    if isinstance(model, Converted):
        convert = model.convert
        refs = {role: getattr(convert, role) for role in ROLES}
        specs = {role: spec_in(ref, convert.revisions.get(role)) for role, ref in refs.items() if ref is not None}
        return target_of(specs, convert.spec, convert.patch, convert.arguments["options"])[0]
    if model in presets() or Path(model).is_file():
        return load_spec(model)
    return spec_in(model)


def spec_in(ref: str, revision: str | None = None) -> ModelSpec:
    """The spec of a folder or hub repository, of which only the configuration is downloaded."""
    return load_spec(find_folder(ref, revision, weights=False))


def open_held_out(
    recipe: Recipe, spec: ModelSpec, shards: Shards, tokenizers: tuple[Tokenizer | None, ...], world_size: int
) -> Iterator[tuple[str, Batches]]:
    """For each objective of the evaluation, held-out rows as one batch, rounded up to what all processes share.

    tokenizers: the data's, and the encoder's own.
    """
    if recipe.evaluation is None:
        return
    rows = -(-recipe.evaluation.rows // world_size) * world_size
    for name, objective in ({OWN: recipe.data.objective} | recipe.evaluation.objectives).items():
        found = streams(shards, objective, "held_out")
        if not found:
            remedy = "Prepare the corpus with held_out, as in 0.01."
            raise SpecError(Problem("evaluation", f"no held-out documents in {recipe.data.shards}", "some", remedy))
        settings: dict[str, Any] = {"batch": rows * objective.window, "micro": recipe.batch.micro, "seed": HELD_OUT_SEED}
        yield name, Batches(spec, objective, found, tokenizers[0], encoder_tokenizer=tokenizers[1], **settings)


def streams(shards: Shards, objective: AnyObjective, split: str) -> list[Any]:
    """A split's streams of pairs for an objective on pairs, else of text."""
    return list(getattr(shards, f"{split}_pairs" if isinstance(objective, SequencePairs) else split))


def check_model(recipe: Recipe, spec: ModelSpec) -> Iterator[Problem]:
    """What the recipe asks of a model that this one is not or has not."""
    names = list(parameters_of(spec))
    yield from check_phases(recipe.phases, recipe.frozen, names)
    if recipe.evaluation is not None and recipe.evaluation.generate is not None and spec.decoder is None:
        yield Problem("evaluation.generate", f"samples of a model of the assembly {spec.assembly}", "a model with a decoder")
    if recipe.z_loss and spec.head.name != "lm":
        yield Problem("z_loss", f"{recipe.z_loss:g} for the head {spec.head.name!r}", "0, or the head lm")
