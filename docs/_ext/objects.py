"""Public objects: found by name, with their signatures as the source writes them."""

import ast
import importlib
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.errors import ExtensionError


@dataclass(frozen=True)
class Found:
    """An object under its public name, with its source: a node, None for a value."""

    module: str
    name: str
    value: Any
    node: ast.AST | None
    file: Path | None
    line: int | None

    @property
    def docstring(self) -> str:
        return inspect.getdoc(self.value) or "" if self.node else ""

    @property
    def comment(self) -> str:
        """Of a value, the string below its definition, which may stand in another module."""
        return comment_of(self.module, self.name)


def find(path: str) -> Found:
    """The object of a dotted name."""
    module, _, name = path.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ExtensionError(f"there is no {path}: {error}") from error
    if isinstance(value, ModuleType):  # pairform.blocks, a package that can be called
        value = getattr(value, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return Found(module, name, value, None, None, None)
    source = inspect.unwrap(value)
    lines, start = inspect.getsourcelines(source)
    node = ast.parse(textwrap.dedent("".join(lines))).body[0]
    return Found(module, name, value, node, Path(inspect.getfile(source)).resolve(), start)


def comment_of(module: str, name: str) -> str:
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for each, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(each, ast.ImportFrom) and each.module and any(alias.name == name for alias in each.names):
            return comment_of(each.module, name)
        targets = each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            said = after.value if isinstance(after, ast.Expr) else None
            return str(said.value) if isinstance(said, ast.Constant) else ""
    return ""


def signature(node: ast.FunctionDef, *, method: bool = False) -> str:
    """Arguments and result, with annotations as they are written."""
    arguments = ast.parse(f"def f({ast.unparse(node.args)}): ...").body[0]
    assert isinstance(arguments, ast.FunctionDef)
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
    if method and not static:
        first = arguments.args.posonlyargs or arguments.args.args
        del first[0]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments.args)}){result}"


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods and properties that the class defines, and `__call__`."""
    functions = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    named = {each.name: each for each in functions if not each.name.startswith("_") or each.name == "__call__"}
    return [each for each in named.values() if ast.get_docstring(each)]


def decorated(node: ast.FunctionDef, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in node.decorator_list)
