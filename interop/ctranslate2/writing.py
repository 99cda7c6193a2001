"""Converting an encoder-decoder for CTranslate2, and comparing the result with ours before it gets its name."""

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.export import copies
from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.save import load
from pairform.assemblies.checkpoints.writing.companions import COMPANIONS, ENCODER_COMPANIONS, TOKENIZER
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec
from pairform.interop.ctranslate2.check import Comparison, compare
from pairform.interop.ctranslate2.shapes import family_for, longest
from pairform.interop.runtime_folder import Tell, check_installed, runtime_folder, unheard, write_model
from pairform.registry import InputError, OutputError, Problem, SpecError, read_json, shorten

QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    tell: Tell = unheard,
    quantization: str | None = None,
    max_length: int | None = None,
) -> int:
    """Write an encoder-decoder as a folder that `ctranslate2.Translator(folder)` opens, with its tokenizer.

    What CTranslate2 does not compute is refused before the conversion, and the float32 model is compared with ours on random
    tokens after it: other logits or greedy tokens withdraw the export.

    Args:
        path_or_repo, out, overwrite, progress, tell: as for `pairform.export`.
        quantization: "int8" and others of CTranslate2's; its difference is measured and told. By default the stored dtype.
        max_length: the largest number of tokens of a source or a target, if that is below the spec's `max_length`. Models with
            windows need one that no window is shorter than.

    Returns:
        The number of bytes of the weights.

    Raises:
        SpecError: CTranslate2 computes something else than the spec says.
        InputError: an argument is invalid, or ctranslate2 or transformers is not installed.
        OutputError: the conversion failed, or its result does not compute the same.
    """
    ctranslate2 = library()
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise InputError(Problem("quantization", shorten(quantization), f"one of {', '.join(QUANTIZATIONS)}"))
    checkpoint = open_checkpoint(path_or_repo)
    spec = checkpoint.spec
    family = family_for(spec)
    most = bound(spec, max_length)
    check_tokenizer(checkpoint)
    with runtime_folder(out, "ctranslate2", checkpoint, overwrite=overwrite, copies=3) as (folder, record):
        source, plain = folder / "source", folder / "plain"
        source.mkdir()
        output = Output(source / "model", "transformers", progress=progress)
        write_model(source, checkpoint, spec, copies(checkpoint, checkpoint.tensors), output)
        model = load(checkpoint.folder, dtype=torch.float32)
        vocabulary = convert(source, plain, None)
        check_special(spec, read_json(plain / "config.json"), vocabulary)
        found = measured(ctranslate2, model, plain, vocabulary, most, "float32")
        if not found.same:
            exact = load(checkpoint.folder, dtype=torch.float64)
            found = measured(ctranslate2, model, plain, vocabulary, most, "float32", exact)
        if not found.same:
            expected = "the logits and greedy tokens of pairform: nothing was written"
            raise OutputError(Problem(f"{family} in CTranslate2", str(found), expected))
        record["check"] = {"float32": str(found)}
        tell(f"float32: {found}")
        if quantization is not None:
            shutil.rmtree(plain)
            convert(source, plain, quantization)
            found = measured(ctranslate2, model, plain, vocabulary, most, "default")
            record["check"] |= {quantization: str(found)}
            tell(f"{quantization}: {found}")
        for sentence in warnings_for(spec, most):
            tell(sentence)
        for path in plain.iterdir():
            path.rename(folder / path.name)
        for name in COMPANIONS:
            if (source / name).exists():
                (source / name).rename(folder / name)
        record["max_length"] = most
        shutil.rmtree(source)
        plain.rmdir()
        return (folder / "model.bin").stat().st_size


def library() -> Any:
    check_installed("ctranslate2", "ctranslate2", "transformers")
    import ctranslate2

    return ctranslate2


def bound(spec: ModelSpec, max_length: int | None) -> int | None:
    """The largest number of tokens of a text; an error if a window is shorter, since CTranslate2 ignores windows."""
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise InputError(Problem("max_length", shorten(max_length), "a number of tokens from 1 on"))
    limits = [stack.max_length for stack in spec.stacks.values() if stack.max_length is not None]
    most = min(limits, default=None) if max_length is None else max_length
    narrow = longest(spec)
    if narrow is not None and (most is None or most > narrow):
        found = f"texts of up to {most} tokens" if most is not None else "texts of any length"
        expected = f"at most {narrow}: CTranslate2 computes the windows of this model only for texts that they cover"
        raise SpecError(Problem("max_length", found, expected, f"Pass max_length={narrow} if no text is longer."))
    return most


def check_tokenizer(checkpoint: Checkpoint) -> None:
    if not (checkpoint.folder / TOKENIZER).exists():
        raise InputError(
            Problem(str(checkpoint.folder / TOKENIZER), "no such file", "a tokenizer, which has the tokens' texts")
        )
    if (own := checkpoint.folder / ENCODER_COMPANIONS[0]).exists():
        raise InputError(Problem(str(own), "a tokenizer of the encoder's own", "one tokenizer for both stacks"))


def convert(source: Path, out: Path, quantization: str | None) -> list[str]:
    """Convert a folder of transformers', and return the tokens by ID."""
    from ctranslate2.converters import TransformersConverter

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars of transformers
            TransformersConverter(str(source)).convert(str(out), quantization=quantization)
    except Exception as error:  # of any kind: the converter reads what it needs without checking
        found = f"{type(error).__name__}: {shorten(str(error), 300)}"
        raise OutputError(Problem("ctranslate2", found, "a model that its converter reads")) from None
    shared = out / "shared_vocabulary.json"
    tokens: Any = read_list(shared if shared.exists() else out / "target_vocabulary.json")
    return tokens


def read_list(path: Path) -> list[str]:
    return json.loads(path.read_bytes())


def check_special(spec: ModelSpec, config: dict[str, Any], vocabulary: Sequence[str]) -> None:
    """Whether the tokens that CTranslate2 starts and ends with, the tokenizer's, are the spec's."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    start, end = (numbers.get(str(config.get(field))) for field in ("decoder_start_token", "eos_token"))
    problems = []
    if start != spec.tokens.first:
        expected = f"{spec.tokens.first}, that of the spec (tokens.start or tokens.bos)"
        problems.append(Problem("tokenizer_config.json: bos_token", f"the start token {start}", expected))
    if end not in spec.tokens.ends:
        problems.append(Problem("tokenizer_config.json: eos_token", f"the end token {end}", f"one of {list(spec.tokens.ends)}"))
    if problems:
        raise InputError(problems)


def measured(
    ctranslate2: Any,
    model: Model,
    folder: Path,
    vocabulary: Sequence[str],
    most: int | None,
    compute: str,
    exact: Model | None = None,
) -> Comparison:
    translator = ctranslate2.Translator(str(folder), device="cpu", compute_type=compute)
    return compare(model, translator, vocabulary, most, exact=exact)


def warnings_for(spec: ModelSpec, most: int | None) -> list[str]:
    """What a caller of CTranslate2 has to know."""
    sentences = []
    if longest(spec) is not None:
        sentences.append(f"For sources and targets of at most {most} tokens: CTranslate2 ignores the windows beyond.")
    if len(spec.tokens.ends) > 1:
        ends = list(spec.tokens.ends)
        sentences.append(f"CTranslate2 ends at one token; pass end_token with the texts of {ends} to translate_batch.")
    if spec.tokens.forced_bos is not None or spec.tokens.forced_ends:
        sentences.append("CTranslate2 forces no tokens: pass forced_bos as target_prefix.")
    if any(stack.vision is not None for stack in spec.stacks.values()):
        sentences.append("Text only: the vision tower is not converted.")
    return sentences
