"""Writing a model as ONNX files, and comparing them with ours before they get their name."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG
from pairform.assemblies.checkpoints.save import load
from pairform.assemblies.checkpoints.writing.companions import companions
from pairform.assemblies.checkpoints.writing.config_file import config_document
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent, write_json
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.families.tokens import GENERATION
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.stack import Stack
from pairform.blocks.attention.self_attention import OwnSequenceAttention
from pairform.blocks.cache import Cache
from pairform.blocks.key_values import Place
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.interop.onnx.check import check
from pairform.interop.onnx.programs import Program, programs
from pairform.interop.runtime_folder import Tell, check_installed, runtime_folder, unheard
from pairform.registry import OutputError, Problem, SpecError, shorten

FOLDER = "onnx"


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    tell: Tell = unheard,
) -> int:
    """Write a model as ONNX files in float32, for any batch size and any lengths, with its configuration and tokenizer.

    The files are run in onnxruntime and compared with ours; if they compute something else, nothing is written.

    Args:
        path_or_repo, out, overwrite, progress, tell: as for `pairform.export`.

    Returns:
        The number of bytes of the ONNX files.

    Raises:
        SpecError: the spec has what these files cannot express.
        InputError: onnx, onnxscript or onnxruntime is not installed.
        OutputError: torch cannot export the model, or the files compute something else.
    """
    check_installed("onnx", "onnx", "onnxscript", "onnxruntime")
    checkpoint = open_checkpoint(path_or_repo)
    spec = checkpoint.spec
    model = load(checkpoint.folder, dtype=torch.float32, kernel="eager")
    own, source = places(model)
    beside = companions({"model": checkpoint})
    with runtime_folder(out, "onnx", checkpoint, overwrite=overwrite, copies=4) as (folder, record):
        beside.copy(folder)
        Output(folder, "transformers").write_generation(folder / GENERATION, spec, beside)
        try:
            config = family_of_spec(spec)[1]
        except SpecError:
            config = config_document(spec, "float32")
            tell("transformers has no class for this spec: config.json is pairform's, which transformers.js does not know.")
        write_json(folder / CONFIG, config, sort_keys=True)
        for part, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
            if stack is not None and stack.vision is not None:
                stack.vision = None
                tell(f"Text only: the vision tower of the {part} is not exported.")
        (folder / FOLDER).mkdir()
        made = programs(model, own, source)
        for name, program in made.items():
            write_program(folder / FOLDER / name, program)
            progress(1, len(made))
        found = check(folder / FOLDER, model, made)
        record["check"] = found
        tell(found)
        return sum(path.stat().st_size for path in (folder / FOLDER).iterdir())


def write_program(path: Path, program: Program) -> None:
    """Export one program; an `OutputError` that says what torch cannot export."""
    names = list(program.example)
    shapes = [{axis: torch.export.Dim(name) for axis, name in program.axes[each].items()} for each in names]
    fixed = len([each for each in names if not each.startswith("past_key_values")])
    dynamic = tuple(shapes) if fixed == len(shapes) else (*shapes[:fixed], tuple(shapes[fixed:]))
    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(
                program.module,
                tuple(program.example.values()),
                input_names=names,
                output_names=list(program.outputs),
                dynamic_shapes=dynamic,
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            for node in made.model.graph.all_nodes():  # source lines and paths of the machine that exported it
                node.metadata_props.clear()
            made.save(str(path))
    except Exception as error:  # of any kind: tracing runs all of the model's code
        cause = error.__cause__ or error
        found = f"{type(cause).__name__}: {shorten(' '.join(str(cause).split()), 300)}"
        raise OutputError(Problem(path.name, found, "a model that torch.export traces for any length")) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's messages, which are for its developers."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def places(model: Model) -> tuple[list[Place], list[Place]]:
    """Where the decoder keeps keys and values of its own tokens, and of the source's, in the order of layers.

    Raises:
        SpecError: the model has what the files cannot express.
    """
    if problems := list(inexpressible(model)):
        raise SpecError(problems)
    if model.decoder is None:
        return [], []
    cache = Cache()
    ids = torch.full((1, 2), 3)
    with torch.no_grad():
        model(ids, torch.ones_like(ids), cache=cache, **({} if model.encoder is None else {"decoder_input_ids": ids}))
    if cache.states:
        found = f"a recurrent state, in {shorten(sorted(name for _, name in cache.states)[0])}"
        raise SpecError(Problem("decoder", found, "attention alone: the files pass on keys and values"))
    own, source = sorted(cache.own), sorted(cache.source)
    for kind in (own, source):
        if len({layer for layer, _ in kind}) < len(kind):
            expected = "one for each layer, as the names of the files' inputs have it"
            raise SpecError(Problem("decoder.layer", "several attentions with keys of their own in a layer", expected))
    return own, source


def inexpressible(model: Model) -> Iterator[Problem]:
    """What the files cannot express, by the spec."""
    if model.source_layers:
        expected = "the encoder's output: encoder_model.onnx has no other"
        yield Problem("decoder.layer.branches.cross_attention.source_layer", "single layers of the encoder", expected)
    if model.spec.head.name != "lm" and model.decoder is not None:
        yield Problem("head.name", repr(model.spec.head.name), "lm, in a model with a decoder")
    for name, stack in model.named_modules():
        if isinstance(stack, Stack) and stack.spec.prefixed:
            yield Problem(name, "a mask with a prefix", "none: the files have no input for its length")
        if isinstance(stack, RotaryPosition) and stack.spec.scaling.by_length:
            yield Problem(f"{name}.scaling", stack.spec.scaling.name, "one that does not depend on the length of the text")
            break
    for name, block in model.named_modules():
        if isinstance(block, OwnSequenceAttention) and name.startswith("decoder.") and not block.mask.causal:
            yield Problem(name, "a decoder that is not causal", "a causal mask: earlier keys would change")
            break
