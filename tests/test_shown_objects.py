"""Objects in a notebook: what their HTML says, that it is escaped, and that its size is bounded."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import pairform
from pairform.experiments.report import read_report
from tests.checkpoints import gemma2
from tests.small_pairs import small_pair
from tests.studies.small_study import write_results

LARGEST, LONGEST = 150_000, 300
"""Characters of an object's HTML and of its `repr`."""
HOSTILE = "<script>alert(1)</script> & \" ' \x1b[31m \u202e"
NAMES = [HOSTILE, HOSTILE * 2_500, "a" * 100_000]
MADE = Callable[[Path], Any]


def planned(folder: Path) -> pairform.Plan:
    gemma2(folder / "source")
    return pairform.plan(encoder=folder / "source", decoder=folder / "source")


def reported(folder: Path, *names: str) -> Any:
    return read_report(write_results(folder, {name: [1.0, 1.1, 1.2] for name in names or ("one", "other")}))


OBJECTS: dict[str, MADE] = {
    "spec": lambda folder: small_pair(),
    "stack": lambda folder: small_pair().decoder,
    "inspection": lambda folder: pairform.inspect(small_pair()),
    "model": lambda folder: pairform.build(small_pair(), seed=0),
    "plan": planned,
    "report": reported,
}


def html_of(shown: Any) -> str:
    """The HTML of an object: well-formed, with nothing that runs or loads, and not large."""
    html: str = shown._repr_html_()
    root = ElementTree.fromstring(html)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "iframe", "object", "embed", "img", "image", "a", "link", "use", "foreignObject"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert not re.search(r"url\(|@import|expression\(", html)
    assert len(html) < LARGEST
    return html


def words(html: str) -> list[str]:
    """The text of each element."""
    return [text for element in ElementTree.fromstring(html).iter() if (text := (element.text or "").strip())]


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_shows_itself(kind: str, tmp_path: Path) -> None:
    """As a table, and specs and models also as a diagram; its `repr` without a notebook is short."""
    shown = OBJECTS[kind](tmp_path)
    html = html_of(shown)
    assert "<table>" in html
    assert ("<svg" in html) == (kind in ("spec", "stack", "model"))
    if kind != "model":  # torch's tree of modules
        assert len(repr(shown)) < LONGEST
        assert len(str(shown).splitlines()) < 30


def test_the_tables_say_what_the_objects_know(tmp_path: Path) -> None:
    spec, total = small_pair(), pairform.inspect(small_pair()).parameters["total"]
    shown = words(html_of(spec))
    assert {"encoder-decoder", "2 layers of width 32, vocabulary 97", "lm, tied to the decoder's embedding"} <= set(shown)
    assert "pad 0, bos 2, eos 1" in shown
    assert "self_attention, cross_attention, feed_forward: gated" in words(html_of(spec.decoder))
    assert f"{total:,}" in words(html_of(pairform.inspect(spec)))
    assert {f"{total:,}", "torch.float32", "cpu"} <= set(words(html_of(pairform.build(spec, seed=0))))
    plan = planned(tmp_path / "plan")
    shown = words(html_of(plan))
    assert f"plan of {len(plan.targets)} tensors" in shown
    assert {"copied", "encoder.layer.branches.self_attention.mask.causal", "true", "false"} <= set(shown)
    shown = words(html_of(reported(tmp_path / "study", "first", "second")))
    assert {"small: 2 variants, 3 seeds: 6 of 6 trials done", "first", "second", "3 of 3"} <= set(shown)
    assert any(text.startswith("second: ") for text in shown)


def test_an_inspection_prints_its_parts() -> None:
    found = pairform.inspect(small_pair(), source_length=9, target_length=7)
    first, head, whole, *parts = str(found).splitlines()
    assert first == "batch 1, source 9, target 7"
    assert head.split() == ["part", "parameters", "share", "GFLOPs"]
    assert whole.split()[:2] == ["model", f"{found.parameters['total']:,}"]
    assert [line.split()[0] for line in parts if re.match(r"  \w", line)] == ["encoder", "decoder", "head"]


@pytest.mark.parametrize("name", NAMES, ids=["short", "long", "one word"])
def test_hostile_names_are_text(name: str, tmp_path: Path) -> None:
    """Names of variants and labels, notes and values of a plan."""
    report = reported(tmp_path, "first", name)
    labels = {"assembly": "encoder_only", "decoder": None, "tie_embeddings": False}
    head = {"name": "sequence_classification", "labels": [name, "other"]}
    spec = pairform.patch(small_pair(), labels | {"head": None} | {"head": head})
    edit = {"path": name, "before": {name: name}, "after": name}
    document = planned(tmp_path / "plan").document() | {"edits": [edit], "notes": [name]}
    for shown in (report, spec, pairform.Plan.read(document)):
        html = html_of(shown)
        assert "<script" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
        assert len(repr(shown)) < LONGEST
    assert any(text.startswith(("<script>alert(1)", "aaa")) for text in words(html_of(report)))


@pytest.mark.parametrize("depth", [200, 1000])
def test_a_stack_of_many_layers_stays_small(depth: int) -> None:
    """Equal layers are drawn once. Layers that all differ are not drawn, and the table says how many there are."""
    overrides = [{"layers": [layer], "patch": {"branches": {"feed_forward": {"hidden": 8 + layer}}}} for layer in range(depth)]
    equal = pairform.patch(small_pair(), {"encoder": {"depth": depth}})
    different = pairform.patch(small_pair(), {"encoder": {"depth": depth, "overrides": overrides}})
    assert "<svg" in html_of(equal)
    html = html_of(different)
    assert "<svg" not in html
    assert f"The diagram is not shown: a stack has {depth:,} different layers." in words(html)
    assert "<svg" not in html_of(different.encoder)
    assert any(re.fullmatch(r"and \d+ more", text) for text in words(html_of(different.encoder)))


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_a_drawing_that_is_too_large_is_left_out(length: int) -> None:
    """Through the name of a branch, which the diagram shows in each layer."""
    name = "b" * length
    order = ["self_attention", name, "feed_forward"]
    layer = {"order": order, "branches": {name: {"name": "mlp", "hidden": 8}, "cross_attention": None}}
    html = html_of(pairform.patch(small_pair(), {"encoder": {"layer": layer}}))
    assert ("<svg" in html) == (length == 1_000)
    assert ("The diagram is not shown" in html) == (length == 100_000)
