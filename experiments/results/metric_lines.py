"""The metrics that a trial logged as it was trained."""

from pathlib import Path
from typing import Any

from pairform.registry import OutputError, Problem, open_regular, parse_json

LINE_BYTES = 1 << 16
"""Longest line of metrics; longer ones are skipped."""
LAST_STEP = 1 << 53
"""Larger integers have no exact float, which plots are drawn with."""


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a trial's metrics, and the number of unreadable ones, as a full disk or an interrupted copy leaves them."""
    found: list[dict[str, Any]] = []
    unread = 0
    if not path.exists():
        return found, unread
    try:
        with open_regular(path) as file:
            while line := file.readline(LINE_BYTES):
                try:
                    value = parse_json(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict) and type(step := value.get("step")) is int and 0 <= step <= LAST_STEP:
                    found.append(value)
                elif line.strip():
                    unread += 1
    except OSError as error:
        raise OutputError(Problem(str(path), error.strerror or str(error), "the lines of a trial's metrics")) from None
    return found, unread
