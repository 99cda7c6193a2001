"""Reading the metadata of torch.distributed.checkpoint (DCP) from a folder that may be a stranger's.

DCP stores a plan of its files as a pickle, `.metadata`, and reads it with `pickle.load`, which runs any code in it; values that
are not tensors are pickles as well. Here only the classes of that plan are unpickled, there are no other values than tensors,
and each file that the plan names must be a regular file in the folder itself.
"""

import io
import os
import pickle
import stat
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from pairform.registry import CheckpointError, Problem, read_bytes, shorten

METADATA = ".metadata"
METADATA_BYTES = 1 << 28
"""Largest metadata that is read; 500 tensors over 64 processes take about 5 MB."""
REMEDY = "Remove its folder to resume from the checkpoint before it, or start a new run."
CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
}
"""All names that a plan of tensors refers to, besides torch's dtypes."""


class Plan(pickle.Unpickler):
    """An unpickler of DCP's metadata that knows no other classes or functions."""

    def find_class(self, module: str, name: str) -> Any:
        if name in CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) == ("builtins", "getattr"):  # how Python 3.11 pickles the member of an enumeration
            return member
        raise pickle.UnpicklingError(f"the name {shorten(f'{module}.{name}')}, which is no part of a plan of tensors")


def member(kind: Any, name: Any) -> Enum:
    """A member of an enumeration."""
    if not (isinstance(kind, type) and issubclass(kind, Enum) and isinstance(name, str)):
        raise pickle.UnpicklingError("an attribute of something that is no enumeration")
    return kind[name]


def read_metadata(folder: Path) -> Metadata:
    """The plan in a checkpoint's folder, checked.

    Raises:
        CheckpointError: it cannot be read, is damaged, or names anything but tensors and files in the folder.
    """
    path = folder / METADATA
    try:
        metadata = Plan(io.BytesIO(read_bytes(path, METADATA_BYTES))).load()
        check(metadata, folder)
    except OSError as error:
        raise CheckpointError(Problem(str(path), error.strerror or str(error), "a checkpoint's metadata", REMEDY)) from None
    except Exception as error:  # a damaged pickle may raise anything
        found = shorten(str(error) or type(error).__name__)
        raise CheckpointError(Problem(str(path), found, "the metadata of a checkpoint of tensors", REMEDY)) from None
    return metadata


def check(metadata: object, folder: Path) -> None:
    """Raise `ValueError` for a plan with anything but tensors in files of this folder."""
    if not isinstance(metadata, Metadata):
        raise ValueError(f"a {type(metadata).__name__}")
    tensors, storage = metadata.state_dict_metadata, metadata.storage_data
    if not isinstance(tensors, dict) or not isinstance(storage, dict):
        raise ValueError("no list of tensors")
    stored = 0
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, TensorStorageMetadata):
            raise ValueError(f"{name}: not a tensor")
        sizes = [tensor.size, *(chunk.sizes for chunk in tensor.chunks), *(chunk.offsets for chunk in tensor.chunks)]
        if not all(isinstance(size, torch.Size) and all(length >= 0 for length in size) for size in sizes):
            raise ValueError(f"{name}: sizes that are not those of tensors")
        if not isinstance(tensor.properties.dtype, torch.dtype):
            raise ValueError(f"{name}: no dtype")
        if not is_whole(tensor):
            raise ValueError(f"{name}: pieces that do not make up the tensor")
        stored += tensor.size.numel() * tensor.properties.dtype.itemsize
    lengths = {path: length_of(folder, path) for path in {place.relative_path for place in storage.values()}}
    if stored > sum(lengths.values()):
        raise ValueError(f"tensors of {stored:,} bytes in files of {sum(lengths.values()):,}")
    for index, place in storage.items():
        inside = 0 <= place.offset <= place.offset + place.length <= lengths[place.relative_path]
        if not inside or place.transform_descriptors:
            raise ValueError(f"{index.fqn}: bytes that are not in its file")


def is_whole(tensor: TensorStorageMetadata) -> bool:
    """Whether the pieces of a tensor, divided in one dimension, are all of it. What has no piece would keep any value."""
    size = tuple(tensor.size)
    pieces = sorted((tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in tensor.chunks)
    divided = next((axis for axis in range(len(size)) if any(offsets[axis] for offsets, _ in pieces)), 0)
    end = 0
    for offsets, sizes in pieces:
        other = [(offset, length) for axis, (offset, length) in enumerate(zip(offsets, sizes, strict=True)) if axis != divided]
        if other != [(0, length) for axis, length in enumerate(size) if axis != divided]:
            return False
        if size and offsets[divided] != end:
            return False
        end += sizes[divided] if size else 1
    return end == (size[divided] if size else 1)


def length_of(folder: Path, name: object) -> int:
    """The length of a regular file in the folder; `ValueError` for any other path."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"the file {name!r}, not one in the folder")
    found = os.lstat(folder / name)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"the file {name!r}, not a regular one")
    return found.st_size


def shapes(metadata: Metadata) -> Mapping[str, TensorStorageMetadata]:
    """The tensors of a checked plan by name."""
    return {name: each for name, each in metadata.state_dict_metadata.items() if isinstance(each, TensorStorageMetadata)}
