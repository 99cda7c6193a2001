"""The documentation's site: whole, linked and without anything from elsewhere."""

import re
from pathlib import Path

from tests.site.conftest import ROOT
from tests.site.pages import pages, read, targets


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    away = {(page.name, address) for page in pages(site) for address in read(page).loaded if re.match(r"\w+:|//", address)}
    assert {each for each in away if not each[1].startswith("data:")} == set()
    styles = "".join(file.read_text("utf-8") for file in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", styles) == []


def test_every_link_leads_to_a_place(site: Path) -> None:
    broken = []
    for page in pages(site):
        for target, fragment in targets(page):
            if not target.is_file():
                broken.append((page.name, target.name, "no file"))
            elif fragment and target.suffix == ".html" and fragment not in read(target).anchors:
                broken.append((page.name, target.name, fragment))
    assert broken == []


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    reached, ahead = set(), [site / "index.html"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".html" and "_downloads" not in page.parts:
            reached.add(page)
            ahead.extend(target for target, _ in targets(page))
    reached.add(site / "search.html")  # the search field of every page opens it
    assert [page.relative_to(site) for page in pages(site) if page not in reached] == []
    wanted = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    assert [file for file in wanted if site / file.relative_to(ROOT).with_suffix(".html") not in reached] == []


def test_links_to_source_lead_to_highlighted_lines(site: Path) -> None:
    page = read(site / "source" / "blocks" / "norms.py.html")
    assert "class RMSNorm" in page.text
    assert "L-1" in page.anchors


def test_formulas_need_no_script(site: Path) -> None:
    for page in pages(site):
        html = page.read_text("utf-8")
        assert 'class="math ' not in html
        assert "<math " not in html or "http://www.w3.org/1998/Math/MathML" in html


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text("utf-8")
    assert "docs/convert" in index
    assert "pairform.load_spec" in index or "load_spec" in index


def test_a_file_to_be_saved_is_named_above_its_text(site: Path) -> None:
    assert re.search(r"code-block-caption.*?copy\.json", (site / "docs" / "study.html").read_text("utf-8"), re.DOTALL)


def test_shapes_are_shown_as_the_source_writes_them(site: Path) -> None:
    text = " ".join(read(site / "docs" / "reference" / "models.html").text.split())
    assert "Int[Tensor, 'batch" in text
