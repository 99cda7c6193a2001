"""Ways to damage a checkpoint folder, and a check that an input is refused without a trace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pairform

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_file(file: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and data."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_file(file: Path, header: dict[str, Any] | str, data: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit_json(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def edit_header(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    header, data = read_file(file)
    edit(header)
    write_file(file, header, data)


def contents(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(call: Callable[[], object], *words: str) -> str:
    """`call` raises a `PairformError` whose message holds each of `words`; the message."""
    with pytest.raises(pairform.PairformError) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message
    return message
