"""What the pages of the site hold: their addresses, the anchors in them, and what they load."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data", "video": "src"}
"""The attribute with the address that an element loads."""
LINKS_THAT_LOAD = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}


@dataclass
class Page(HTMLParser):
    """links: addresses of `a` elements; anchors: what a fragment can name; loaded: scripts, styles, fonts and images."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        loads = tag != "link" or LINKS_THAT_LOAD & set(values.get("rel", "").split())
        if loads and values.get(LOADS.get(tag, "")):
            self.loaded.append(values[LOADS[tag]])

    def handle_data(self, data: str) -> None:
        self.text += data


@functools.cache
def read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text("utf-8"))
    return page


def pages(site: Path) -> list[Path]:
    """Pages of the site, without files that it offers for download."""
    return sorted(file for file in site.rglob("*.html") if "_downloads" not in file.parts)


def targets(page: Path) -> Iterator[tuple[Path, str]]:
    """Files of the site that a page links to, with the fragment."""
    for link in read(page).links:
        parts = urlsplit(link)
        if not parts.scheme and not parts.netloc:
            yield (page.parent / unquote(parts.path)).resolve() if parts.path else page, unquote(parts.fragment)
