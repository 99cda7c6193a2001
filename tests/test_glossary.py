"""The glossary has the project's terms, and its links and those of the explanations lead to headings that exist."""

import re
from pathlib import Path

import pytest

from tests.reader import ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRY = re.compile(r"^- \*\*(?P<terms>[^*]+)\*\*: (?P<text>.*?)(?=^- |^## |\Z)", re.MULTILINE | re.DOTALL)
ANCHOR = re.compile(r"\]\((?!https?:)(?P<page>[^)#]*)#(?P<anchor>[^)]+)\)")
PAGES = [GLOSSARY, *sorted((ROOT / "docs" / "explanations").glob("*.md"))]


def terms(text: str) -> set[str]:
    """The terms of an entry or of a row of the word list, without what stands in parentheses."""
    return {term.strip() for term in re.sub(r"\([^)]*\)", "", text).split(",")}


def word_list() -> set[str]:
    """The terms of CONTRIBUTING's table."""
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Word list")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return set().union(*map(terms, rows[1:]))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as repository browsers and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_glossary_has_the_terms_of_the_word_list() -> None:
    entries = [match["terms"] for match in ENTRY.finditer(GLOSSARY.read_text("utf-8"))]
    assert word_list() - set().union(*map(terms, entries)) == set()
    assert entries == sorted(entries, key=str.lower)


def test_every_entry_is_a_definition_and_a_link() -> None:
    for match in ENTRY.finditer(GLOSSARY.read_text("utf-8")):
        assert re.search(r"See\s+\[[^]]+\]\([^)]+\)\.\s*\Z", match["text"]), match["terms"]
        assert 1 <= len(re.findall(r"[.!?](?=\s)", match["text"])) - 1 <= 3, match["terms"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_anchors_exist(page: Path) -> None:
    for link in ANCHOR.finditer(page.read_text("utf-8")):
        target = (page.parent / link["page"]).resolve() if link["page"] else page
        assert link["anchor"] in anchors(target), link[0]
