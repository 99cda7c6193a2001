"""Sphinx's settings. `make docs` builds the site from the repository's root, so that links between files keep their form.

Nothing is fetched, neither by the build nor by the pages.
"""

import sys
from pathlib import Path

import pairform

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "pairform"
author = "the pairform authors"
copyright = author
version = release = pairform.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "accessible",
    "fences",
    "mathml",
    "navigation",
    "source_pages",
    "reference",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/**/README.md",
    "tests/compatibility/README.md",
]
exclude_patterns = [".*", "docs/_*", "**/__pycache__"]
maximum_signature_line_length = 90
nitpick_ignore_regex = [("py:.*", r".*")]
"""Types of signatures that have no entry in the reference, those of other libraries among them. Pages link to pages."""

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_dmath_allow_digits = False
myst_dmath_allow_space = False
myst_heading_anchors = 4
nb_execution_mode = "off"
highlight_language = "text"
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"pairform {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r"^\$ |^>>> "
copybutton_prompt_is_regexp = True
copybutton_copy_empty_lines = False
