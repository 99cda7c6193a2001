"""Execute the notebooks, and store them with their outputs."""

import tempfile
from pathlib import Path

from tests.notebooks import NOTEBOOKS, executed, text_of

for notebook in NOTEBOOKS:
    with tempfile.TemporaryDirectory() as folder:
        notebook.write_text(text_of(executed(notebook, Path(folder))), "utf-8")
    print(notebook.name)
