"""Writing a checkpoint in another format, or for another program."""

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args

from pairform.assemblies.checkpoints.export import export as export_tensors
from pairform.assemblies.checkpoints.writing.output import Format
from pairform.assemblies.checkpoints.writing.shards import Progress, silent
from pairform.interop.runtime_folder import Tell, unheard
from pairform.registry import InputError, OutputError, Problem, shorten

RUNTIMES = {
    "ctranslate2": "pairform.interop.ctranslate2",
    "onnx": "pairform.interop.onnx",
    "sentence-transformers": "pairform.interop.sentence_transformers",
}
"""Formats of other programs, and the packages whose `export` writes them."""
FORMATS = (*get_args(Format), *RUNTIMES)


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    format: str = "transformers",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
    tell: Tell = unheard,
    **options: Any,
) -> int:
    """Write a checkpoint in another format.

    In the formats "transformers" and "pairform" the tensors are the same bytes; memory does not grow with the model.

    Args:
        path_or_repo: a folder, or a hub id.
        out: a new or empty folder; it appears whole or not at all.
        format: "transformers", "pairform", or that of another program: "sentence-transformers", "ctranslate2", "onnx".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `out`.
        progress: called with the bytes just written and the bytes in all.
        tell: called with each sentence about the result that is worth reading, such as the difference that int8 makes.
        options: those of another program's format. "ctranslate2": `quantization`, `max_length`;
            "sentence-transformers": `prompts`, `default_prompt`, `truncate_dim`.

    Returns:
        The number of bytes of the weights.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        SpecError: the format cannot express the spec.
        OutputError: `out` cannot be written, or what was written does not compute the same.
        InputError: an option that the format does not have, or a library that is not installed.
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise OutputError(Problem("format", shorten(format), f"one of {', '.join(FORMATS)}"))
    run: Any = import_module(RUNTIMES[format]).export if format in RUNTIMES else export_tensors
    known = set(signature(run).parameters)
    if unknown := sorted(options.keys() - known):
        raise InputError([Problem(name, f"an option that the format {format} does not have", "none") for name in unknown])
    common = {"max_shard_size": max_shard_size, "overwrite": overwrite, "progress": progress, "tell": tell}
    common = common if format in RUNTIMES else common | {"format": format}
    return run(path_or_repo, out, **{name: value for name, value in common.items() if name in known}, **options)
