"""A folder of sentence-transformers: what its modules after the stack compute is a head, and their tensors are that head's."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.safetensors_file import StoredTensor
from pairform.assemblies.checkpoints.reading.weights import exists, stored_tensors
from pairform.registry import CheckpointError, Problem, SpecError, read_bytes, read_json, shorten

MODULES = "modules.json"
PACKAGE = "sentence_transformers.models."
POOLING = {"mean": "mean", "first": "cls", "last": "lasttoken"}
LEGACY_POOLING = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}
"""The fields of sentence-transformers before 5.5, which 6 still reads."""
ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "gelu": "torch.nn.modules.activation.GELU",
    "relu": "torch.nn.modules.activation.ReLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
    "tanh": "torch.nn.modules.activation.Tanh",
}
"""Classes that it makes without arguments, by our names."""
MOST = 8
"""More modules than a folder that can be read has."""
FOLDER = re.compile(r"\d{1,3}_\w{1,40}", re.ASCII)
"""What the folder of a module is called; a path could lead elsewhere."""
USUAL = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding", "use_residual": False}
"""What fields of a dense layer must be if they are there."""


@dataclass(frozen=True)
class SentenceModules:
    """head: the document of the head.
    tensors: those of the head, by our names.
    """

    head: dict[str, Any]
    tensors: Mapping[str, StoredTensor]


def sentence_modules(folder: Path) -> SentenceModules | None:
    """The modules after the stack; None for a folder that is not sentence-transformers'.

    Raises:
        CheckpointError, SpecError: modules that are no head of ours.
    """
    file = folder / MODULES
    if not exists(file):
        return None
    listed = listed_modules(file)
    kinds: list[tuple[str, Path]] = []
    for number, entry in enumerate(listed if isinstance(listed, list) else []):
        where = f"{file}: {number}"
        path, kind = (entry.get("path"), entry.get("type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise CheckpointError(Problem(f"{where}.type", shorten(kind), "a class of sentence-transformers"))
        if not isinstance(path, str) or (not FOLDER.fullmatch(path) if number else path != ""):
            expected = "a folder as 1_Pooling" if number else "an empty one: the stack beside this file"
            raise CheckpointError(Problem(f"{where}.path", shorten(path), expected))
        kinds.append((kind.rpartition(".")[2], folder / path))
    order = " ".join(kind for kind, _ in kinds)
    if not re.fullmatch(r"Transformer Pooling( Dense){0,2}( Normalize)?", order):
        expected = "Transformer, Pooling, at most two Dense, and perhaps Normalize"
        raise CheckpointError(Problem(str(file), f"the modules {shorten(order)}", expected))
    head: dict[str, Any] = {
        "name": "sentence_embedding",
        "pooling": pooling_of(kinds[1][1] / "config.json"),
        "normalise": kinds[-1][0] == "Normalize",
    }
    tensors: dict[str, StoredTensor] = {}
    layers = [dense_of(path) for kind, path in kinds if kind == "Dense"]
    plain = [layer["activation"] == "identity" and not layer["bias"] for layer, _ in layers]
    if layers and plain[-1]:
        projection, found = layers.pop()
        head["projection"] = projection["width"]
        tensors |= {"head.proj.weight": found["linear.weight"]}
    if len(layers) > 1:
        raise CheckpointError(Problem(str(file), "a second Dense with an activation or a bias", "a projection alone"))
    for layer, found in layers:
        head["transform"] = layer
        tensors |= {f"head.transform.dense.{name.removeprefix('linear.')}": tensor for name, tensor in found.items()}
    return SentenceModules(head, tensors)


def listed_modules(file: Path) -> object:
    """The content of modules.json, a list at its top."""
    return read_json(file, content=b'{"modules": ' + read_bytes(file) + b"}")["modules"]


def module_folders(folder: Path) -> list[str]:
    """The folders of the modules after the stack. `sentence_modules` reports what is wrong with modules.json."""
    listed: object = None
    with suppress(SpecError, OSError):
        listed = listed_modules(folder / MODULES)
    paths = [entry.get("path") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [path for path in paths[:MOST] if isinstance(path, str) and FOLDER.fullmatch(path)]


def pooling_of(file: Path) -> str:
    """Our name of a pooling."""
    config = read_json(file)
    mode = config.get("pooling_mode")
    if mode is None:
        fields = [field for field, value in config.items() if field.startswith("pooling_mode_") and value]
        mode = next((name for name, field in LEGACY_POOLING.items() if [field] == fields), shorten(fields))
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    ours = next((ours for ours, theirs in POOLING.items() if theirs == mode), None)
    if ours is None:
        raise CheckpointError(Problem(f"{file}: pooling_mode", shorten(mode), f"one of {', '.join(POOLING.values())}"))
    if config.get("include_prompt", True) is not True:
        raise CheckpointError(Problem(f"{file}: include_prompt", "false", "true: pooling reads all tokens here"))
    return ours


def dense_of(folder: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """A dense layer as the document of a transform, and its tensors."""
    file = folder / "config.json"
    config = read_json(file)
    for field, usual in USUAL.items():
        if config.get(field, usual) not in (usual, None):
            raise CheckpointError(Problem(f"{file}: {field}", shorten(config[field]), f"{usual!r}, or nothing"))
    named = config.get("activation_function", ACTIVATIONS["tanh"])
    activation = next((ours for ours, theirs in ACTIVATIONS.items() if theirs == named), None)
    if activation is None:
        # sentence-transformers would take tanh for it
        raise CheckpointError(
            Problem(f"{file}: activation_function", shorten(named), f"one of {', '.join(ACTIVATIONS.values())}")
        )
    tensors, bias = stored_tensors(folder), config.get("bias", True)
    wanted = {"linear.weight", "linear.bias"} if bias else {"linear.weight"}
    if tensors.keys() != wanted:
        raise CheckpointError(Problem(str(folder), f"the tensors {shorten(sorted(tensors))}", f"{sorted(wanted)}"))
    return {"activation": activation, "bias": bias, "width": config.get("out_features")}, tensors
