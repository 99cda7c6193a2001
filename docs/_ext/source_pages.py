"""Links to files of the repository lead to pages that show them: highlighted source, or the listing of a folder."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import PygmentsBridge
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata

LEXERS = {".py": "python", ".json": "json", ".toml": "toml", ".md": "markdown"}
"""The languages of files that a page shows; others can be downloaded."""
LONGEST = 200_000
"""Characters of a file that a page shows."""
MOST = 120
"""Entries of a folder that a page lists."""


def source_page(env: BuildEnvironment, path: str, line: int | None = None) -> str:
    """The relative address of the page that shows a file or folder; the page is made."""
    env.metadata[env.docname].setdefault("sources", set()).add(path)
    address = env.app.builder.get_relative_uri(env.docname, f"source/{path}")
    return f"{address}#L-{line}" if line else address


class SourceLinks(SphinxTransform):
    """Before Sphinx copies files to be downloaded."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        root = Path(self.env.srcdir).resolve()
        for node in list(
            self.document.findall(lambda each: isinstance(each, addnodes.download_reference | addnodes.pending_xref))
        ):
            assert isinstance(node, nodes.Element)
            target = self.target(node)
            if target and target.is_relative_to(root) and shown(target):
                address = source_page(self.env, target.relative_to(root).as_posix())
                node.replace_self(nodes.reference("", "", *node.children, refuri=address, internal=True))

    def target(self, node: nodes.Element) -> Path | None:
        """The file or folder that a link of a page names, unless it is a page itself."""
        name = node.get("reftarget", "")
        if node.get("reftype") != "myst" or (node.get("refdomain") == "doc" and name in self.env.found_docs):
            return None
        path = f"/{name}.md" if node.get("refdomain") == "doc" else name
        return Path(self.env.relfn2path(path, self.env.docname)[1]).resolve()


def shown(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix in LEXERS and path.stat().st_size <= LONGEST)


def collect(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of all files that pages link to."""
    bridge = PygmentsBridge("html", app.builder.config.pygments_style)
    for path in sorted({path for each in app.env.metadata.values() for path in each.get("sources", ())}):
        file = Path(app.srcdir) / path
        body = listing(file) if file.is_dir() else highlighted(file, bridge)
        yield f"source/{path}", {"title": path, "body": f"<h1>{escape(path)}</h1>{body}"}, "page.html"


def highlighted(file: Path, bridge: PygmentsBridge) -> str:
    text = file.read_text("utf-8")
    return bridge.highlight_block(text, LEXERS[file.suffix], linenos="inline", lineanchors="L")


def listing(folder: Path) -> str:
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir() if path.name[0] not in "._")
    return f"<ul>{''.join(f'<li><code>{escape(name)}</code></li>' for name in names[:MOST])}</ul>"


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_transform(SourceLinks)
    app.connect("html-collect-pages", collect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
