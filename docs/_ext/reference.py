"""The reference's directives, which write their entries at build time.

`api`: public objects by dotted name, from their signatures and docstrings.
`fields`: all fields of a document, by the class of its spec.
`commands`: every command of the command line, with its options and examples.
"""

import ast
import inspect
from collections.abc import Iterator

from commands import all_commands
from docstrings import markdown, parse
from docutils import nodes
from objects import Found, decorated, find, methods, signature
from source_pages import source_page
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata
from tables import field_rows, option_rows, table


class Api(SphinxDirective):
    """One dotted name a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [node for path in self.content if path.strip() for node in self.parse_text_to_nodes(self.entry(path.strip()))]

    def entry(self, path: str) -> str:
        found = find(path)
        node = found.node
        if isinstance(node, ast.FunctionDef):
            form, head = "function", found.name + signature(node)
        elif isinstance(node, ast.ClassDef):
            form, head = ("exception" if issubclass(found.value, Exception) else "class"), found.name
        else:
            return directive("data", found.name, found.module, self.value_text(found))
        return directive(form, head, found.module, "\n\n".join([self.source(found), *body(found)]))

    def value_text(self, found: Found) -> str:
        return found.comment or f"`{found.value!r}`"

    def source(self, found: Found) -> str:
        assert found.file
        path = found.file.relative_to(self.env.srcdir).as_posix()
        return f"<a class='source-link' href='{source_page(self.env, path, found.line)}'>source: {path}</a>"


def body(found: Found) -> Iterator[str]:
    parsed = parse(found.docstring)
    yield markdown(parsed)
    if isinstance(found.node, ast.ClassDef):
        if rows := field_rows(found.value, found.node, parsed.sections.get("Attributes", {})):
            yield table(rows)
        for method in methods(found.node):
            yield method_text(method)


def method_text(node: ast.FunctionDef) -> str:
    said = markdown(parse(inspect.cleandoc(ast.get_docstring(node) or "")))
    if decorated(node, "property") or decorated(node, "cached_property"):
        result = f"\n:type: {ast.unparse(node.returns)}" if node.returns else ""
        return f"::::{{py:property}} {node.name}{result}\n:no-index:\n\n{said}\n::::"
    options = "".join(f":{name}:\n" for name in ("classmethod", "staticmethod") if decorated(node, name))
    return f"::::{{py:method}} {node.name}{signature(node, method=True)}\n:no-index:\n{options}\n{said}\n::::"


def directive(form: str, head: str, module: str, content: str) -> str:
    return f":::::{{py:{form}}} {head}\n:module: {module}\n\n{content}\n:::::"


class Fields(SphinxDirective):
    """The argument: the dotted name of a spec's class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table(option_rows(find(self.arguments[0]).value)))


class Commands(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(all_commands(), allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("api", Api)
    app.add_directive("fields", Fields)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
