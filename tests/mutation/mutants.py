"""Small wrong changes to a source file: each is one that a test should notice."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SWAPPED: dict[type[ast.AST], Any] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "first": "last", "last": "first"}
WORDS = ("Problem", "Field", "Literal", "Annotated", "shorten", "TypeVar", "warn", "print", "echo")
"""Calls and subscripts whose arguments are words for people, or types."""


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and what it is, in words."""

    line: int
    words: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    count = len(list(changes(ast.parse(source))))
    for number in range(count):
        tree = ast.parse(source)
        line, words, change = list(changes(tree))[number]
        change()
        yield Mutant(line, words, ast.unparse(ast.fix_missing_locations(tree)))


Change = tuple[int, str, Callable[[], None]]


def changes(tree: ast.Module) -> Iterator[Change]:
    """Each possible change of the tree; calling it makes it."""
    for node in parts(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Compare):
            yield from (swap(line, node.ops, place) for place, op in enumerate(node.ops) if type(op) in SWAPPED)
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
            if not (isinstance(node, ast.BinOp) and of_text(node)):
                yield line, f"{type(node.op).__name__} swapped", put(node, "op", SWAPPED[type(node.op)]())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield line, "not removed", put_operand(node)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield line, "condition negated", put(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float) and node.value is not None:
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield line, f"{node.value!r} became {value!r}", put(node, "value", value)
        elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
            yield line, f"{node.id} became {NAMES[node.id]}", put(node, "id", NAMES[node.id])
        elif isinstance(node, ast.Call) and node.keywords:
            for keyword in node.keywords:
                if keyword.arg is not None:
                    yield line, f"{keyword.arg}= dropped", drop(node.keywords, keyword)
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list):
                for statement in body:
                    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                        yield statement.lineno, "call removed", replace(body, statement, ast.Pass())
                    elif isinstance(statement, ast.AugAssign):
                        yield statement.lineno, "assignment removed", replace(body, statement, ast.Pass())


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: no annotations, decorators, defaults of classes, errors or words for people."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not skipped(child):
                yield from parts(child)


def skipped(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    named = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else None
    return (named.id if isinstance(named, ast.Name) else getattr(named, "attr", None)) in WORDS


def of_text(node: ast.BinOp) -> bool:
    """Whether it joins or formats text, or types."""
    ends = (node.left, node.right)
    return any(isinstance(end, ast.JoinedStr) or (isinstance(end, ast.Constant) and isinstance(end.value, str)) for end in ends)


def swap(line: int, ops: list[ast.cmpop], place: int) -> Change:
    def change() -> None:
        ops[place] = SWAPPED[type(ops[place])]()

    return line, f"{type(ops[place]).__name__} swapped", change


def put(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def put_operand(node: ast.UnaryOp) -> Callable[[], None]:
    """`not x` becomes `bool(x)`."""

    def change() -> None:
        node.operand = ast.UnaryOp(ast.Not(), node.operand)

    return change


def drop(keywords: list[ast.keyword], keyword: ast.keyword) -> Callable[[], None]:
    return lambda: keywords.remove(keyword)


def replace(body: list[ast.stmt], old: ast.stmt, new: ast.stmt) -> Callable[[], None]:
    return lambda: body.__setitem__(body.index(old), new)
