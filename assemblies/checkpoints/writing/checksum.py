"""Checksums of tensors and digests of files.

A CRC-32 finds damage: a flipped bit, a truncated or mixed-up file. Whoever changes a tensor on purpose can keep its CRC-32.
SHA-256 finds that too, when it is compared with a digest from elsewhere.
"""

import hashlib
import zlib
from pathlib import Path

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


def sha256(file: Path) -> str:
    """The SHA-256 of a regular file, as `sha256sum` prints it."""
    with open_regular(file) as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()
