"""The weights of a model's folder: which safetensors files hold them, by the index or as a single file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pairform.assemblies.checkpoints.reading.safetensors_file import (
    PIECE_BYTES,
    CheckpointTensor,
    SafetensorsFile,
    StoredTensor,
)
from pairform.registry import CheckpointError, Problem, SpecError, read_json, shorten

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def exists(path: Path) -> bool:
    """Whether there is a file of any type: one that is not regular is refused when it is opened."""
    return path.exists() and not path.is_dir()


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name in the files; no data is read.

    Only safetensors are read, and the single file is preferred to shards, as in transformers.

    Raises:
        CheckpointError: there are no such weights, or the files and the index disagree.
    """
    index, single = folder / INDEX, folder / SINGLE
    if exists(single):
        return SafetensorsFile(single).tensors
    if exists(index):
        return sharded_tensors(folder, index)
    if any(any(folder.glob(pattern)) for pattern in PICKLES):
        remedy = "Loading a pickle can run any code; save the model with safetensors first."
        raise CheckpointError(Problem(str(folder), "weights as pickles only", f"{SINGLE} or {INDEX}", remedy))
    raise CheckpointError(Problem(str(folder), "no weights", f"{SINGLE} or {INDEX}"))


def sharded_tensors(folder: Path, index: Path) -> dict[str, StoredTensor]:
    """The tensors of the shards that an index names."""
    weight_map = read_weight_map(index)
    present = {path.name for path in folder.iterdir() if not path.is_dir()}
    files: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted(set(map(str, weight_map.values()))):
        # no paths: an index may be from a stranger, and name files outside the folder
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(Problem(str(index), f"the file {name!r}", "plain file names beside the index"))
        if name not in present:
            raise CheckpointError(Problem(str(index), f"the file {name!r}, which is not there", "files beside the index"))
        files[name] = SafetensorsFile(folder / name).tensors
    found: dict[str, StoredTensor] = {}
    problems = []
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            if name in found:
                problems.append(Problem(tensor.place, f"it again after {found[name].file.path.name}", "it once"))
            elif weight_map.get(name) != file:
                problems.append(Problem(tensor.place, f"{weight_map.get(name)!r} for it in the index", f"{file!r}"))
            else:
                found[name] = tensor
    problems += [
        Problem(f"{index}: {name}", f"no such tensor in {file}", "every indexed tensor in its file")
        for name, file in weight_map.items()
        if name not in files[str(file)]
    ]
    if problems:
        raise CheckpointError(problems)
    return found


def read_weight_map(index: Path) -> dict[str, Any]:
    """The file of each tensor, by an index."""
    try:
        weight_map = read_json(index).get("weight_map")
    except SpecError as error:
        raise CheckpointError(error.problems) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(Problem(str(index), f"weight_map: {shorten(weight_map)}", "an object: tensor -> file"))
    return weight_map


def same_values(tensors: Mapping[str, CheckpointTensor], name: str, other: str) -> bool:
    """Whether two tensors hold the same numbers, whatever their dtypes, or one of them is absent.

    Both are read in pieces, up to the first difference.
    """
    if name not in tensors or other not in tensors:
        return True
    one, two = tensors[name], tensors[other]
    if one.shape != two.shape:
        return False
    # the same rows of both, in pieces of about PIECE_BYTES of the larger one
    rows = max(PIECE_BYTES * (one.shape or (1,))[0] // max(one.nbytes, two.nbytes, 1), 1)
    dtype = torch.promote_types(one.dtype, two.dtype)
    pieces = zip(one.pieces(rows), two.pieces(rows), strict=True)
    return all(torch.equal(mine.to(dtype), theirs.to(dtype)) for mine, theirs in pieces)
