"""Writing a model that embeds texts as a folder that `SentenceTransformer(folder)` opens. It does not need the library."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.export import copies
from pairform.assemblies.checkpoints.extract import as_written, expressible
from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint, open_checkpoint
from pairform.assemblies.checkpoints.reading.model_folder import PROJECTING
from pairform.assemblies.checkpoints.reading.sentence_modules import MODULES, PACKAGE
from pairform.assemblies.checkpoints.writing.companions import TOKENIZER
from pairform.assemblies.checkpoints.writing.output import Output
from pairform.assemblies.checkpoints.writing.shards import Progress, silent, write_json, write_tensors
from pairform.assemblies.families import nearest_family
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.interop.runtime_folder import Tell, runtime_folder, unheard, write_model
from pairform.interop.sentence_transformers.modules import Module, dimensions, embedding_head, modules_of
from pairform.registry import InputError, Problem, read_json, shorten

SETTINGS = "config_sentence_transformers.json"
UNREGISTERED = (
    "transformers has no class for this encoder: `import pairform.interop.transformers` registers one, which must come before "
    "SentenceTransformer(folder)"
)

WIDER = (
    "transformers gives the encoder of T5Gemma windows that are wider by one token on each side than those that it was trained "
    "with: embeddings of texts of more than {} tokens differ from pairform's"
)


def export(
    path_or_repo: str | Path,
    out: str | Path,
    *,
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    progress: Progress = silent,
    tell: Tell = unheard,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
    truncate_dim: int | None = None,
) -> int:
    """Write a model with the head `sentence_embedding` or `contrastive` as a folder of sentence-transformers.

    The stack is written for transformers if it has a class for it, else in pairform's format.

    Args:
        path_or_repo, out, max_shard_size, overwrite, progress, tell: as for `pairform.export`.
        prompts: texts to put before an input, by name: {"query": "query: "}. By default those of the source, if it is such a
            folder.
        default_prompt: the name of the one that `encode` uses if none is asked for.
        truncate_dim: the number of dimensions that `encode` returns, the first ones (Matryoshka embeddings). By default all.

    Returns:
        The number of bytes of the weights.

    Raises:
        SpecError: another head, or one that no sequence of modules computes.
        InputError: settings that do not fit each other or the model.
    """
    checkpoint = open_checkpoint(path_or_repo)
    spec = checkpoint.spec
    embedding_head(spec)
    if not (checkpoint.folder / TOKENIZER).exists():
        expected = "a tokenizer: sentence-transformers reads texts"
        raise InputError(Problem(str(checkpoint.folder / TOKENIZER), "no such file", expected))
    settings = settings_of(checkpoint, prompts, default_prompt, truncate_dim)
    projected = expressible(spec) and nearest_family(spec).model_type in PROJECTING
    body = spec if projected else ModelSpec.read(spec.document() | {"head": {"name": "none"}})
    later = list(modules_of(spec, projected=projected))
    with runtime_folder(out, "sentence-transformers", checkpoint, overwrite=overwrite) as (folder, _):
        entries, written = copies(checkpoint, parameters_of(body)), body if projected else as_written(body)
        if known := expressible(written):
            old, new = next(iter(body.stacks)), next(iter(written.stacks))
            entries = [replace(entry, name=entry.name.replace(f"{old}.", f"{new}.", 1)) for entry in entries]
        else:
            tell(UNREGISTERED)
        if known and (length := narrow(written)) is not None:
            tell(WIDER.format(length))
        output = Output(folder / "model", "transformers" if known else "pairform", max_shard_size, progress=progress)
        size = write_model(folder, checkpoint, written if known else body, entries, output)
        write_json(folder / SETTINGS, settings)
        length = spec.last.max_length
        write_json(folder / "sentence_bert_config.json", {} if length is None else {"max_seq_length": length})
        paths = ["", *(f"{number}_{module.kind}" for number, module in enumerate(later, 1))]
        kinds = ["Transformer", *(module.kind for module in later)]
        listed = [
            {"idx": number, "name": str(number), "path": path, "type": PACKAGE + kind}
            for number, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ]
        (folder / MODULES).write_text(json.dumps(listed, indent=2) + "\n", "utf-8")
        size += sum(write_module(folder / path, module, checkpoint) for path, module in zip(paths[1:], later, strict=True))
    return size


def narrow(written: ModelSpec) -> int | None:
    """The number of tokens that all windows of T5Gemma's encoder cover; None for other models and without windows."""
    reaches = [mask.window[0] for layer in written.last.layers if (mask := layer.self_attention.mask) and mask.window]
    return min(reaches) + 1 if reaches and nearest_family(written).model_type == "t5gemma" else None


def write_module(folder: Path, module: Module, checkpoint: Checkpoint) -> int:
    """Write a module's folder; returns the number of bytes of its weights."""
    folder.mkdir()
    write_json(folder / "config.json", module.config)
    entries = [replace(entry, name=module.tensors[entry.name]) for entry in copies(checkpoint, module.tensors)]
    if entries:
        write_tensors(folder, entries)
    return sum(entry.size for entry in entries)


def settings_of(
    checkpoint: Checkpoint, prompts: Mapping[str, str] | None, default_prompt: str | None, truncate_dim: int | None
) -> dict[str, Any]:
    """The settings of `encode`: those given, else those of the source if it is a folder of sentence-transformers."""
    path = checkpoint.folder / SETTINGS
    source = read_json(path) if path.exists() else {}
    prompts = source.get("prompts", {}) if prompts is None else dict(prompts)
    default_prompt = source.get("default_prompt_name") if default_prompt is None else default_prompt
    truncate_dim = source.get("truncate_dim") if truncate_dim is None else truncate_dim
    if not isinstance(prompts, dict) or not all(isinstance(part, str) for item in prompts.items() for part in item):
        raise InputError(Problem("prompts", shorten(prompts), "a text for each name"))
    if default_prompt is not None and default_prompt not in prompts:
        expected = f"the name of a prompt: {shorten(list(prompts))}"
        raise InputError(Problem("default_prompt", shorten(default_prompt), expected))
    most = dimensions(checkpoint.spec)
    if truncate_dim is not None and not (isinstance(truncate_dim, int) and 1 <= truncate_dim <= most):
        raise InputError(Problem("truncate_dim", shorten(truncate_dim), f"a number of dimensions from 1 to {most}"))
    settings = {"prompts": prompts, "default_prompt_name": default_prompt, "similarity_fn_name": "cosine"}
    return settings if truncate_dim is None else settings | {"truncate_dim": truncate_dim}
