"""Places of files on this machine, which are not published: of each, only its last part is kept."""

import re
from typing import Any

LOCAL = re.compile(r"(/|~|\.\.?[\\/]|\\\\|[A-Za-z]:[\\/]|file:)[^\n]+")
"""A path that is absolute, or relative to a home or to the current folder."""


FIELDS = ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file")
"""Fields in which transformers records places of files."""


def without_path_fields(document: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the last part of each path in `FIELDS`."""
    return document | {name: without_paths(document[name]) for name in FIELDS if name in document}


def without_paths(value: Any) -> Any:
    """A JSON value with the last part of each such path in its place."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and LOCAL.fullmatch(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
