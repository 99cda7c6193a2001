"""The command line run in this process, as the command `pairform` runs it."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from pairform.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class CommandLine:
    """Call it with the words after `pairform`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *words: object) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["pairform", *map(str, words)])
        self.capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)


def document(result: Result) -> Any:
    """What a command that did its work printed as JSON."""
    assert result.code == 0, result.err
    return json.loads(result.out)


def refused(result: Result, code: int, *words: str) -> None:
    """Ended with `code` and a message that holds `words`, without a traceback."""
    assert result.code == code, result
    assert "Traceback" not in result.err
    message = " ".join(result.err.split())
    assert all(word in message for word in words), message
