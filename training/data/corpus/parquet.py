"""Reading the rows of a Parquet file."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pairform.registry import Problem, SpecError, not_installed, open_regular, shorten, suggest
from pairform.training.data.files import CHUNK, LINE_BYTES

PARQUET = ".parquet"
ROWS = 64
"""Rows that are decoded at once."""


def rows(file: Path, fields: Sequence[str], move: Callable[[int], object]) -> Iterator[bytes]:
    """Each row's `fields` as a JSON object.

    Pages are read one after another, so that a row group may be larger than memory. move: called with the bytes that the rows
    read take of the file.

    Raises:
        SpecError: the file is no Parquet file, a column is missing, or a value is not JSON or too long.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise SpecError(not_installed(str(file), "pyarrow", "adapt")) from None
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            parquet = ParquetFile(stream, pre_buffer=False, buffer_size=CHUNK)
            check_columns(file, parquet.schema_arrow, fields)
            number = moved = 0
            for batch in parquet.iter_batches(ROWS, columns=list(fields), use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield as_line(row, f"{file}: row {number}")
                move(size * number // parquet.metadata.num_rows - moved)
                moved = size * number // parquet.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or f"no Parquet: {error}"
        raise SpecError(Problem(str(file), found, "a Parquet file")) from None


def check_columns(file: Path, schema: Any, fields: Sequence[str]) -> None:
    for name in fields:
        if name not in schema.names:
            known = ", ".join(shorten(column, 40) for column in schema.names[:20])
            found = f"no column {name!r}"
            raise SpecError(Problem(str(file), found, f"one of {known or 'none'}", suggest(name, schema.names)))


def as_line(row: dict[str, Any], where: str) -> bytes:
    """A row as a line of JSON."""
    try:
        line = json.dumps(row, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(Problem(where, f"a value that JSON does not have: {error}", "texts")) from None
    if len(line) > LINE_BYTES:
        raise SpecError(Problem(where, f"more than {LINE_BYTES:,} bytes", "a shorter text"))
    return line
