"""Rewrite the golden files, and the page of all fields of config.json (which takes a minute)."""

from tests.golden import golden_files, text_of
from tests.parity.config_page import PAGE, page

for path, document in golden_files():
    path.write_text(text_of(document), "utf-8")
    print(path.name)
PAGE.write_text(page(), "utf-8")
print(PAGE.name)
