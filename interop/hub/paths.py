"""Places of files on this machine, which are not published: of each, only its last part is kept."""

import re
from typing import Any

LOCAL = re.compile(r"(/|~|\.\.?[\\/]|\\\\|[A-Za-z]:[\\/]|file:)[^\n]+")
"""A path that is absolute, or relative to a home or to the current folder."""


def without_paths(value: Any) -> Any:
    """A JSON value with the last part of each such path in its place."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and LOCAL.fullmatch(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
