"""Checksums of tensors as they lie in their files."""

import zlib
from pathlib import Path

from pairform.assemblies.checkpoints.header import readable
from pairform.assemblies.checkpoints.stored import tensors_in
from pairform.registry import open_regular

ALGORITHM = "crc32"
PIECE = 1 << 20
"""Bytes moved and summed at a time: few enough to stay in the processor's cache."""


class Checksum:
    """The CRC-32 of bytes as they come."""

    def __init__(self) -> None:
        self._value = 0

    def add(self, data: memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def __str__(self) -> str:
        return f"{self._value:08x}"


def checksum(file: Path, begin: int, end: int) -> str:
    """The CRC-32 of bytes `begin` to `end` of a file."""
    total, buffer = Checksum(), memoryview(bytearray(min(PIECE, end - begin)))
    with readable(file), open_regular(file) as raw:
        raw.seek(begin)
        while begin < end and (read := raw.readinto(buffer[: end - begin])):
            total.add(buffer[:read])
            begin += read
    return str(total)


def checksums(file: Path) -> dict[str, str]:
    """The checksum of each tensor in a file."""
    return {name: checksum(file, tensor.begin, tensor.end) for name, tensor in tensors_in(file).items()}
