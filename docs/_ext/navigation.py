"""`pages`: a toctree in a given order that leaves out what does not exist, such as folders without pages yet."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.other import TocTree
from sphinx.util.matching import patfilter
from sphinx.util.typing import ExtensionMetadata


class Pages(TocTree):
    """Entries are absolute names of pages, or patterns of them."""

    def run(self) -> list[nodes.Node]:
        self.options["glob"] = None
        known = self.env.found_docs
        entries = list(self.content)
        for entry in entries:
            if not list(patfilter(known, entry.strip().lstrip("/"))):
                self.content.remove(entry)
        return super().run()


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("pages", Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
