"""Diagrams of specs: what they show, and that they hold together as SVG and as Mermaid."""

import itertools
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pairform
from pairform.assemblies.analysis.diagrams.folding import fold
from tests.catalogue.places import places
from tests.command_line.runner import CommandLine

PATCHES: dict[str, dict[str, Any]] = {
    "merged": {"decoder": {"layer": {"branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None}}}},
    "partial": {"decoder": {"overrides": [{"layers": [0, 1], "patch": {"branches": {"cross_attention": None}}}]}},
    "parallel": {"decoder": {"layer": {"placement": "pre", "order": ["cross_attention", ["self_attention", "feed_forward"]]}}},
    "post": {"encoder": {"layer": {"placement": "post", "residual": {"name": "scaled", "scale": 0.5}}}},
    "deeper": {"decoder": {"depth": 28}},
    "tied": {"tie_embeddings": True, "bridge": {"name": "linear"}},
}
LINE = re.compile(
    r'flowchart TD|end|subgraph \w+ \["[^"]*"\]|(?P<node>\w+)\["[^"]*"\]'
    r'|(?P<left>\w+) (-->|==>|== "[^"]*" ==>|-\. tied \.-) (?P<right>\w+)'
    r"|classDef \w+ [\w:#,\- ]+|class (?P<classed>[\w,]+) \w+"
)
"""The part of Mermaid's language that we write."""


def base() -> pairform.ModelSpec:
    return pairform.load_spec("t5gemma-2b-2b")


def every_diagram(form: str) -> list[str]:
    """All presets, every block in every place, each alone, and each patch against the base."""
    asked: Any = form
    changed = [pairform.patch(base(), patch) for patch in PATCHES.values()]
    blocks = [spec for kind, registry in pairform.blocks().items() for name in registry for spec in places(kind, name).values()]
    alone = [pairform.diagram(spec, asked) for spec in [*map(pairform.load_spec, pairform.presets()), *changed, *blocks]]
    olds = [base(), pairform.load_spec("t5gemma2-270m-270m"), pairform.load_spec("gemma-2-2b")]
    return alone + [pairform.diagram(new, asked, old=old) for new in [*changed, *olds] for old in olds]


def check_mermaid(text: str) -> None:
    """Each line is of a known form, what is opened is closed, and each name that is used is a node or a subgraph."""
    found = []
    settings, *lines = text.splitlines()
    assert json.loads(settings.removeprefix("%%{init: ").removesuffix("}%%"))
    for line in lines:
        match = LINE.fullmatch(line.strip())
        assert match, line
        found.append(match)
    opened = [match[0].split()[1] for match in found if match[0].startswith("subgraph")]
    assert [match[0] for match in found].count("end") == len(opened)
    names = [*opened, *(match["node"] for match in found if match["node"])]
    assert len(names) == len(set(names))
    used = {
        name for match in found for group in ("left", "right", "classed") for name in (match[group] or "").split(",") if name
    }
    assert used <= set(names)


def test_mermaid_keeps_to_what_it_knows() -> None:
    for text in every_diagram("mermaid"):
        check_mermaid(text)


def test_svg_is_well_formed_and_its_cards_stand_apart() -> None:
    for text in every_diagram("svg"):
        root = ElementTree.fromstring(text)
        width, height = (float(root.attrib[side]) for side in ("width", "height"))
        cards = [element.attrib for element in root.iter() if element.get("class") == "card"]
        boxes = [tuple(float(card[side]) for side in ("x", "y", "width", "height")) for card in cards]
        assert boxes
        assert all(x >= 0 and y >= 0 and x + wide <= width and y + high <= height for x, y, wide, high in boxes)
        for (x, y, wide, high), (left, top, other, tall) in itertools.combinations(boxes, 2):
            assert x + wide <= left or left + other <= x or y + high <= top or top + tall <= y
        assert not re.search(r"href|url\(|@import", text)


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_a_spec_is_drawn_with_its_layers_folded() -> None:
    shown = texts(pairform.diagram(base(), title="a <pair> & more"))
    assert shown[:3] == ["a <pair> & more", "encoder", "width 2,304, 26 layers"]
    assert shown.count("13 times") == 2
    assert shown.count("layers 1, 3, …, 25") == 2
    assert shown.count("cross attention") == 2
    assert "tied to the decoder's embedding, softcap 30" in shown
    assert "causal, window 4,096, softcap 50, rope" in shown  # of a causal layer: itself and 4,095 before it
    gemma = texts(pairform.diagram(pairform.load_spec("gemma-3-1b")))
    assert [line for line in gemma if line.endswith("times")] == [
        "4 times",
        "5 times",
        "2 times",
    ]  # 5 local layers and a global


@pytest.mark.parametrize(
    ("patch", "arrows"), [({}, 2), (PATCHES["merged"], 2), (PATCHES["partial"], 2), (PATCHES["tied"], 2)], ids=str
)
def test_what_reads_the_source_is_joined_to_its_end(patch: dict[str, Any], arrows: int) -> None:
    text = pairform.diagram(pairform.patch(base(), patch), "mermaid")
    readers = re.findall(r"(\w+) ==> (\w+)", text)
    assert len(readers) == arrows
    end = "bridge: linear" if "bridge" in patch else "norm: rmsnorm"
    for source, reader in readers:
        assert re.search(rf'{source}\["<b>{end}</b>', text)
        assert re.search(rf'{reader}\["<b>\w+ attention[^"]* encoder\'s output', text)
    assert ("encoder1 -. tied .- decoder1" in text) == bool(patch.get("tie_embeddings"))


def test_a_layer_of_the_encoder_that_is_read_is_named() -> None:
    layers = [{"branches": {"cross_attention": {"source_layer": layer}}} for layer in (3, "matching")]
    spec = pairform.patch(base(), {"decoder": {"cycle": layers}})
    text = pairform.diagram(spec, "mermaid")
    check_mermaid(text)
    assert re.findall(r"(encoder == .*) ==>", text) == ['encoder == "layer 3"', 'encoder == "matching layer"']
    assert {"layer 3", "matching layer", "reads the encoder's layer 3"} <= set(texts(pairform.diagram(spec)))


def test_a_decoder_alone_reads_its_own_tokens() -> None:
    text = pairform.diagram(pairform.load_spec("gemma-2-2b"), "mermaid")
    assert "==>" not in text
    assert "reads own tokens" in text
    assert "encoder" not in text


def test_norms_stand_where_the_placement_says() -> None:
    placed = {
        placement: pairform.diagram(pairform.patch(base(), {"encoder": {"layer": {"placement": placement}}}), "mermaid")
        for placement in ("pre", "sandwich", "post")
    }
    encoders = {placement: text.partition("subgraph decoder")[0] for placement, text in placed.items()}
    assert encoders["pre"].count("<br/>rmsnorm before<br/>") == 4
    assert encoders["sandwich"].count("<br/>rmsnorm before and after<br/>") == 4
    assert encoders["post"].count('["<b>sum</b><br/>rmsnorm"]') == 4


def test_parallel_branches_join_in_one_sum() -> None:
    text = pairform.diagram(pairform.patch(base(), PATCHES["parallel"]), "mermaid")
    sums = re.findall(r'(\w+)\["<b>sum</b>"\]', text)
    assert [len(re.findall(rf"--> {name}\b", text)) for name in sums] == [2, 2]


def test_a_difference_is_marked_where_it_is() -> None:
    old = base()
    assert pairform.diagram(old, "svg", old=old) == pairform.diagram(old, "svg")
    shown = texts(pairform.diagram(pairform.patch(old, PATCHES["merged"]), old=old))
    assert (shown.count("changed"), shown.count("removed"), shown.count("added")) == (2, 2, 0)
    assert shown.count("instead of self_attention") == 2
    shown = texts(pairform.diagram(old, old=pairform.patch(old, PATCHES["merged"])))
    assert (shown.count("changed"), shown.count("removed"), shown.count("added")) == (2, 0, 2)
    shown = texts(pairform.diagram(pairform.patch(old, PATCHES["partial"]), old=old))
    assert shown.count("removed") == 2  # in the first layer and in the second
    assert "layers 2, 4, …, 24" in shown
    shown = texts(pairform.diagram(pairform.patch(old, PATCHES["deeper"]), old=old))
    assert {"depth 26 → 28", "layer 26 (added)", "layer 27 (added)"} <= set(shown)
    shown = texts(pairform.diagram(pairform.patch(old, {"tokens": {"eos": 107}, "decoder": {"dropout": 0.1}}), old=old))
    assert {"tokens.eos 1 → 107", "dropout 0 → 0.1"} <= set(shown)
    shown = texts(
        pairform.diagram(pairform.patch(old, {"encoder": {"layer": {"branches": {"feed_forward": {"hidden": 64}}}}}), old=old)
    )
    assert shown.count("hidden 9,216 → 64") == 2


def test_the_picture_in_the_docs_is_what_is_drawn_now() -> None:
    """`pairform show t5gemma-2b-2b --diagram svg > docs/diagrams/t5gemma-2b-2b.svg` makes it anew."""
    picture = Path(__file__).parents[1] / "docs" / "diagrams" / "t5gemma-2b-2b.svg"
    assert picture.read_text("utf-8") == pairform.diagram(base(), title="t5gemma-2b-2b")


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=40))
def test_folding_loses_nothing(items: list[str]) -> None:
    loops = fold(items)
    assert [item for loop in loops for _ in range(loop.times) for run in loop.runs for item in [run.item] * run.times] == items
    places = sorted(place for loop in loops for run in loop.runs for place in run.places)
    assert places == list(range(len(items)))
    assert all(items[place] == run.item for loop in loops for run in loop.runs for place in run.places)


def test_the_commands_print_diagrams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = CommandLine(monkeypatch, capsys)
    shown = command("show", "t5gemma-2b-2b", "--diagram", "svg", "--set", "decoder.depth=4")
    assert shown.code == 0
    assert "2 times" in texts(shown.out)
    compared = command("diff", "t5gemma-2b-2b", "t5gemma-9b-2b", "--diagram", "mermaid")
    assert compared.code == 0
    check_mermaid(compared.out)
    assert "width 2,304 → 3,584" in compared.out
    wrong = command("show", "t5gemma-2b-2b", "--diagram", "png")
    assert wrong.code == 2
    assert "svg or mermaid" in " ".join(wrong.err.split()) or "mermaid or svg" in " ".join(wrong.err.split())
