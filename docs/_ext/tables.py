"""Tables of fields: of a class, and of a document with the objects in it."""

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pairform.cli.fields import fields_of

Row = tuple[str, str, str, str]
"""Name, type, default and meaning."""


def table(rows: list[Row]) -> str:
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(part.replace("|", "\\|") for part in row) + " |" for row in rows)])


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def option_rows(spec: type[BaseModel]) -> list[Row]:
    """Every field of a document's spec, by its path in the JSON."""
    return [
        (code(each.path), each.type, "required" if each.required else code(each.default or ""), each.says)
        for each in fields_of(spec)
    ]


def field_rows(value: type, node: ast.ClassDef, said: Mapping[str, str]) -> list[Row]:
    """The public fields of a spec or a dataclass, inherited ones included. said: meanings from the docstring."""
    described = {name: text for names, text in said.items() for name in names.split(", ")}
    types = dict(annotations(value))
    if issubclass(value, BaseModel):
        return [
            (
                code(field.alias or name),
                code(types.get(name, "")),
                "required" if field.is_required() else code(default_text(field.get_default(call_default_factory=False))),
                field.description or described.get(name, ""),
            )
            for name, field in value.model_fields.items()
        ]
    if not dataclasses.is_dataclass(value):
        return [(code(name), code(types.get(name, "")), "", text) for name, text in described.items()]
    return [
        (code(field.name), code(types.get(field.name, "")), default_of(field), described.get(field.name, ""))
        for field in dataclasses.fields(value)
        if not field.name.startswith("_")
    ]


def annotations(value: type) -> Iterator[tuple[str, str]]:
    """Types of fields as the source writes them, without the metadata of `Annotated`."""
    for owner in reversed(value.__mro__):
        if not owner.__module__.startswith("pairform"):
            continue
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for each in tree.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                yield each.target.id, plain(each.annotation)


def plain(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        return plain(annotation.slice.elts[0])
    if isinstance(annotation, ast.BinOp):
        return f"{plain(annotation.left)} | {plain(annotation.right)}"
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return code(default_text(field.default))
    return "new for each" if field.default_factory is not dataclasses.MISSING else "required"


def default_text(default: Any) -> str:
    """As JSON where it can be."""
    if default is None or default is PydanticUndefined:
        return ""
    try:
        return json.dumps(default.model_dump(exclude_defaults=True) if isinstance(default, BaseModel) else default)
    except TypeError:
        return str(default)
