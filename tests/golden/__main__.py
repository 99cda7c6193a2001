"""Rewrite the golden files."""

from tests.golden import golden_files, text_of

for path, document in golden_files():
    path.write_text(text_of(document), "utf-8")
    print(path.name)
