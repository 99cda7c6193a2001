"""Rewrite the diagrams of the gallery."""

from tests.gallery import diagrams

for path, text in diagrams():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    print(path.name)
