"""Where spec documents are: the presets that come with pairform, files and folders."""

import contextlib
from pathlib import Path
from typing import Any

from pairform.registry.errors import PATH, Problem, SpecError, shorten, suggest
from pairform.registry.json_values import read_json

PRESETS = Path(__file__).resolve().parent / "presets"


def presets() -> list[str]:
    """The names of the architectures that come with pairform."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def expanded(name: str) -> dict[str, Any]:
    """A preset's expanded form: what `load_spec(name).document()` is, from a committed file, without importing any block."""
    return read_json(PRESETS / "expanded" / f"{name}.json")


def locate(ref: str, folder: Path) -> Path:
    """The file or folder that `ref` means: a preset's name, or a path relative to `folder`."""
    if not ref:  # which Python reads as the current folder
        raise SpecError(Problem("", "an empty name", "a preset's name, or the path of a file or folder"))
    if ref in presets():
        return PRESETS / f"{ref}.json"
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # a name too long, of no user, with a null byte
        path = folder / Path(ref).expanduser()
        if path.exists():
            return path
    hint = suggest(ref, presets(), str) or "`pairform presets` lists the presets."
    raise SpecError(Problem(shorten(ref, PATH), "no preset, file or folder of that name", "one that exists", hint))
