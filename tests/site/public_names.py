"""Public names: what packages offer, what pages and examples import; and what the reference says of each."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.pages import blocks

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "pairform",
    "pairform.registry",
    "pairform.experiments.report",
    "pairform.interop.transformers",
    "pairform.training.checkpoints",
    "pairform.training.data.objectives",
    "pairform.training.data.stream",
)
"""Packages that offer names to users."""


def offered() -> Iterator[str]:
    """The names in a package's `__all__`, or else those that its `__init__` imports as themselves."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        again = re.findall(r"import \w+ as (\w+)$", inspect.getsource(module), re.MULTILINE)
        yield from (f"{package}.{name}" for name in getattr(module, "__all__", again))


def imported() -> Iterator[str]:
    """The names that pages and examples import from modules of pairform."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [block.text for page in pages for block in blocks(page) if block.language == "python"]
    for text in [*texts, *(file.read_text("utf-8") for file in (ROOT / "examples").rglob("*.py"))]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "pairform":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def documented() -> list[str]:
    """The names in the reference's `api` directives."""
    texts = [file.read_text("utf-8") for file in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    entries = [entry for text in texts for entry in re.findall(r"^:::\{api\}\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL)]
    return [line for entry in entries for line in entry.split()]


def found(path: str) -> Any:
    """The object of a dotted name; a package that can be called stands for its function."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return getattr(value, name) if isinstance(value, ModuleType) else value


def identity(path: str) -> str:
    """Equal for two names of one function or class."""
    value = found(path)
    described = inspect.isclass(value) or inspect.isfunction(value)
    return f"{value.__module__}.{value.__qualname__}" if described else path.rpartition(".")[2]


def functions(path: str) -> Iterator[tuple[str, Any, str]]:
    """A function, or the public methods of a class that it defines itself: by name, with the docstring, inherited or not."""
    value = found(path)
    if inspect.isfunction(value):
        yield path, inspect.unwrap(value), inspect.getdoc(value) or ""
    elif inspect.isclass(value):
        for name, method in list(vars(value).items()):
            plain = inspect.unwrap(getattr(method, "__func__", None) or getattr(method, "fget", None) or method)
            own = inspect.isfunction(plain) and plain.__name__ == name and plain.__module__.startswith("pairform")
            if own and not name.startswith("_"):
                yield f"{path}.{name}", plain, inspect.getdoc(getattr(value, name)) or ""


def raised(function: Any) -> set[str]:
    """The names of exceptions that a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return {name for name in names if name[0].isupper()}
