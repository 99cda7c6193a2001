"""`pages`: a toctree in a given order that leaves out patterns without pages; and a first page for the whole folder."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.other import TocTree
from sphinx.util.matching import patfilter
from sphinx.util.typing import ExtensionMetadata


class Pages(TocTree):
    """Entries are absolute names of pages, or patterns of them, or `Title </page>`."""

    def run(self) -> list[nodes.Node]:
        self.options["glob"] = None
        for entry in list(self.content):
            name = entry.rpartition("<")[2].strip(" />")
            if not list(patfilter({*self.env.found_docs, "genindex"}, name)):
                self.content.remove(entry)
        return super().run()


def front(app: Sphinx, error: Exception | None) -> None:
    """The site's folders are the repository's; its own address leads to the first page."""
    address = app.builder.get_target_uri(app.config.root_doc)
    refresh = f'<meta http-equiv="refresh" content="0; url={address}">'
    page = f'<!doctype html><html lang="en"><title>{app.config.project}</title>{refresh}<a href="{address}">pairform</a></html>'
    (Path(app.outdir) / "index.html").write_text(page, "utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pages", Pages)
    app.connect("build-finished", front)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
