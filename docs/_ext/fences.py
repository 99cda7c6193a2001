"""The name of a file in a fence (`json file=model.json`) becomes the caption of the code."""

import re

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

FENCE = re.compile(r"^```(?P<language>\w+) file=(?P<file>\S+)$", re.MULTILINE)


def caption(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = FENCE.sub(r"```{code-block} \g<language>\n:caption: \g<file>", source[0])


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("source-read", caption)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
