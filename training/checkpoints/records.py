"""The tensors of a checkpoint, written and read by torch.distributed.checkpoint (DCP).

DCP stores each piece of a tensor as `torch.save` writes it: a zip archive with a pickle and the bytes. `torch.load` would run
the pickle, with few names, and inflate what a stranger has compressed, to any size. Here only the bytes are read. Dtype and
sizes are those of the plan.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, WriteItem
from torch.futures import Future

from pairform.registry import open_regular
from pairform.training.checkpoints.metadata import shapes

DATA = "/data/0"
"""How the name of the bytes ends in the archive of one tensor."""
ARCHIVE_BYTES = 1 << 17
"""Most that is read at once of an archive's directory, which has about 700 bytes; a zip's last comment may have 65,535."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip's entry: its signature, and the lengths of its name and of further fields. The bytes follow these."""


class Reader(FileSystemReader):
    """Reads the files of a plan that was checked."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.folder, self.metadata = folder, metadata
        self.chunks: dict[tuple[str, torch.Size | None], tuple[torch.Size, torch.dtype]] = {
            (name, chunk.offsets): (chunk.sizes, tensor.properties.dtype)
            for name, tensor in shapes(metadata).items()
            for chunk in tensor.chunks
        }

    def read_metadata(self) -> Metadata:  # without a rank, by which DCP would try other files
        return self.metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            index, place = item.storage_index, self.storage_data[item.storage_index]
            sizes, dtype = self.chunks[index.fqn, index.offset]
            with open_regular(self.folder / place.relative_path) as file:
                tensor = read_record(file, place.offset, place.length, sizes, dtype)
            for dimension, (begin, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                tensor = tensor.narrow(dimension, begin, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(tensor)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def read_record(file: Any, offset: int, length: int, sizes: torch.Size, dtype: torch.dtype) -> Tensor:
    """The tensor in a part of a file; `ValueError` if that is not the archive of a contiguous tensor of this size."""
    record = Record(file, offset, length)
    wanted = sizes.numel() * dtype.itemsize
    try:
        with zipfile.ZipFile(record) as archive:
            entry = next(each for each in archive.infolist() if each.filename.endswith(DATA))
        record.seek(entry.header_offset)
        signature, name, extra = LOCAL_HEADER.unpack(record.read(LOCAL_HEADER.size))
    except (zipfile.BadZipFile, struct.error, NotImplementedError, StopIteration) as error:
        raise ValueError(f"no archive of one tensor ({error})") from None
    if signature != b"PK\3\4" or entry.compress_type != zipfile.ZIP_STORED or entry.file_size != wanted or wanted > length:
        raise ValueError(f"other than {wanted:,} uncompressed bytes for {list(sizes)}")
    data = bytearray(wanted)
    record.seek(entry.header_offset + LOCAL_HEADER.size + name + extra)
    if record.fill(data) != wanted or zlib.crc32(data) != entry.CRC:
        raise ValueError(f"bytes of a tensor of {list(sizes)} that have changed")
    return torch.frombuffer(data, dtype=dtype).view(sizes) if wanted else torch.empty(sizes, dtype=dtype)


class Record(io.RawIOBase):
    """A part of a file, read in small pieces."""

    def __init__(self, file: Any, offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.place = file, offset, length, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.length}[whence]
        if not 0 <= self.place <= self.length:
            raise OSError("a place outside of the record")
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1) -> bytes:
        left = self.length - self.place
        size = left if size < 0 else min(size, left)
        if size > ARCHIVE_BYTES:
            raise ValueError(f"an archive with a directory of {size:,} bytes")
        content = bytearray(size)
        self.fill(content)
        return bytes(content)

    def fill(self, content: bytearray) -> int:
        """Read as many bytes as `content` has. Returns how many there were."""
        self.file.seek(self.offset + self.place)
        count: int = self.file.readinto(memoryview(content)[: self.length - self.place])
        self.place += count
        return count


class Writer(FileSystemWriter):
    """Writes files that name no path of this machine."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(save_id=self.save_id)


class ContiguousPlanner(DefaultSavePlanner):
    """Saves each tensor with its bytes in the order of its indices, so that they can be read without their strides."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        data = super().resolve_data(write_item)
        return data.contiguous() if isinstance(data, Tensor) else data
