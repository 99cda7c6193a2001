"""Checksums of tensors as they lie in their files."""

import zlib
from pathlib import Path

from pairform.assemblies.checkpoints.stored import readable, tensors_in

ALGORITHM = "crc32"
PIECE = 1 << 20
"""Bytes summed at a time: few enough to stay in the processor's cache."""


def checksum(file: Path, begin: int, end: int) -> str:
    """The CRC-32 of bytes `begin` to `end` of a file."""
    value, buffer = 0, memoryview(bytearray(min(PIECE, end - begin)))
    with readable(file), file.open("rb", buffering=0) as raw:
        raw.seek(begin)
        while begin < end and (read := raw.readinto(buffer[: end - begin])):
            value = zlib.crc32(buffer[:read], value)
            begin += read
    return f"{value:08x}"


def checksums(file: Path) -> dict[str, str]:
    """The checksum of each tensor in a file."""
    return {name: checksum(file, tensor.begin, tensor.end) for name, tensor in tensors_in(file).items()}
