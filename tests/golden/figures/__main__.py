"""Write docs/blocks.md and the documentation's pictures, without the other golden files."""

from tests.golden import BLOCKS, page_files

for path, text in page_files():
    path.write_text(text, "utf-8")
    print(path.relative_to(BLOCKS.parent))
