"""What axe-core rejects in the HTML of Sphinx and furo, mended before a page is written."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

ARGUMENTS = re.compile(r"<dl>\n((?:<dd><em class=\"sig-param\">.*</dd>\n)+)</dl>")
"""Arguments of a signature in lines: definitions without terms."""


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.document | None) -> None:
    if body := context.get("body"):
        context["body"] = ARGUMENTS.sub(lambda found: re.sub("<(/?)dd>", line, found[1]), body)
    if navigation := context.get("furo_navigation_tree"):
        context["furo_navigation_tree"] = navigation.replace('role="heading"', 'role="heading" aria-level="2"')


def line(tag: re.Match[str]) -> str:
    return "</span>" if tag[1] else '<span class="argument">'


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("html-page-context", mend, priority=900)  # after furo, which makes the navigation
    return {"parallel_read_safe": True, "parallel_write_safe": True}
