"""Specs: documents, patches, cycles and overrides, and what is refused before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pairform
from pairform.registry import SpecError, merge_patch, parse_settings
from tests.documents import broken_documents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=3)


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_rfc_7386(document: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(document, patch) == expected


@given(OBJECTS, OBJECTS)
def test_a_patch_applied_twice_changes_no_more(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


@pytest.mark.parametrize("name", pairform.presets())
def test_the_expanded_form_reads_back_as_the_same_spec(name: str) -> None:
    spec = pairform.load_spec(name)
    again = pairform.load_spec(json.loads(json.dumps(spec.document())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert pairform.diff(spec, again) == {}


def test_specs_are_immutable() -> None:
    spec = pairform.load_spec("t5gemma-s-s")
    assert spec.decoder is not None
    with pytest.raises(ValueError, match="frozen"):
        spec.vocabulary = 3
    with pytest.raises(TypeError, match="immutable"):
        spec.decoder.layer.branches["self_attention"] = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="immutable"):
        spec.decoder.cycle[0]["branches"] = {}


OVERRIDES = [
    {"layers": [-1], "patch": {"placement": "pre"}},
    {"layers": [0, -1], "patch": {"dropout": 0.5}},
    {"layers": [-1], "patch": {"dropout": 0.25}},
]


def test_a_cycle_takes_turns_and_an_override_changes_one_layer() -> None:
    spec = pairform.load_spec("gemma-2-2b", {"decoder": {"overrides": OVERRIDES}})
    assert spec.decoder is not None
    windows = [layer.document()["branches"]["self_attention"]["mask"].get("window") for layer in spec.decoder.layers]
    assert windows == [[4095, 4095], None] * 13
    assert [layer.placement for layer in spec.decoder.layers] == ["sandwich"] * 25 + ["pre"]
    assert [layer.dropout for layer in spec.decoder.layers] == [0.5] + [0.0] * 24 + [0.25]


def test_a_branch_can_be_left_out_of_some_layers() -> None:
    without = {"branches": {"cross_attention": None}}
    cycled = pairform.load_spec("t5gemma-s-s", {"decoder": {"cycle": [{}, without]}})
    single = pairform.load_spec("t5gemma-s-s", {"decoder": {"overrides": [{"layers": [1, 3, 5, 7], "patch": without}]}})
    for spec in (cycled, single):
        again = pairform.load_spec(json.loads(json.dumps(spec.document())))
        assert again.decoder is not None
        assert ["cross_attention" in layer.present for layer in again.decoder.layers] == [True, False] * 4


@pytest.mark.parametrize("layer", [26, -27, "0", 1.5, None])
def test_an_override_of_no_layer_is_refused(layer: Any) -> None:
    with pytest.raises(SpecError, match=r"decoder\.overrides\[0\]\.layers\[0\]"):
        pairform.load_spec("gemma-2-2b", {"decoder": {"overrides": [{"layers": [layer], "patch": {}}]}})


def test_a_patch_that_changes_a_name_keeps_the_fields_that_fit() -> None:
    spec = pairform.load_spec("t5gemma-s-s")
    swapped = pairform.patch(spec, {"decoder": {"layer": {"branches": {"feed_forward": {"name": "mlp"}}}}})
    assert swapped.decoder is not None
    assert swapped.decoder.layer.branches["feed_forward"].document() == {
        "name": "mlp",
        "hidden": 1024,
        "activation": "gelu_tanh",
        "bias": False,
        "dropout": 0.0,
        "wide_output": False,
    }
    normed = pairform.patch(spec, {"decoder": {"layer": {"norm": {"name": "layernorm"}}}})
    assert normed.decoder is not None
    assert normed.decoder.layer.norm.document() == {"name": "layernorm", "eps": 1e-6, "bias": True}


def test_a_branch_removed_keeps_its_place_in_the_order() -> None:
    spec = pairform.load_spec("t5gemma-s-s")
    without = pairform.patch(spec, {"decoder": {"layer": {"branches": {"cross_attention": None}}}})
    assert without.decoder is not None
    assert without.decoder.layers[0].present == ["self_attention", "feed_forward"]
    assert spec.decoder is not None
    back = {"cross_attention": spec.decoder.layer.branches["cross_attention"].document()}
    assert pairform.diff(pairform.patch(without, {"decoder": {"layer": {"branches": back}}}), spec) == {}


def test_documents_extend_presets_files_and_their_stacks(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text('{"extends": "t5gemma-s-s", "vocabulary": 500}')
    (tmp_path / "stack.json").write_text('{"extends": "gemma-2-2b", "depth": 3}')
    (tmp_path / "deep").mkdir()
    top = {
        "extends": "../base.json",
        "encoder": {"extends": "t5gemma-b-b", "depth": 2},
        "decoder": {"extends": "t5gemma-l-l#decoder", "depth": 1},
    }
    (tmp_path / "deep" / "top.json").write_text(json.dumps(top))
    spec = pairform.load_spec(tmp_path / "deep" / "top.json")
    assert spec.vocabulary == 500
    assert spec.encoder is not None
    assert (spec.encoder.width, spec.encoder.depth) == (768, 2)
    assert spec.decoder is not None
    assert (spec.decoder.width, spec.decoder.depth) == (1024, 1)
    stack = pairform.load_spec({"extends": "gemma-2-2b", "decoder": {"extends": str(tmp_path / "stack.json")}})
    assert stack.decoder is not None
    assert stack.decoder.depth == 3


def test_documents_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"extends": "b.json"}')
    (tmp_path / "b.json").write_text('{"extends": "a.json"}')
    with pytest.raises(SpecError, match="A document extends itself"):
        pairform.load_spec(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("settings", "patch"),
    [
        (["a.b=3", "a.c=x"], {"a": {"b": 3, "c": "x"}}),
        (["a=null"], {"a": None}),
        (['a={"name": "none"}', "b=[1, 2]"], {"a": {"name": "none"}, "b": [1, 2]}),
        (["a=b=c"], {"a": "b=c"}),
    ],
)
def test_settings_are_a_patch(settings: list[str], patch: dict[str, Any]) -> None:
    assert parse_settings(settings) == patch


@pytest.mark.parametrize("setting", ["a", "=3", "a..b=3", ".a=3"])
def test_settings_that_cannot_be_read_are_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="path=value"):
        parse_settings([setting])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kv_heads that do not divide heads": (
        {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 3}}}}},
        r"decoder\.layer\.branches\.self_attention.*kv_heads \(3\) to divide heads \(8\)",
    ),
    "heads that do not divide the width": (
        {"decoder": {"layer": {"branches": {"self_attention": {"heads": 7, "kv_heads": 7, "head_dim": None}}}}},
        r"decoder\.layer\.branches\.self_attention\.heads: found 7 heads in a width of 512",
    ),
    "a scaling without what it needs": (
        {"decoder": {"layer": {"branches": {"self_attention": {"position": {"scaling": {"name": "proportional"}}}}}}},
        r"decoder\.layer\.branches\.self_attention\.position\.scaling\.fraction: found nothing",
    ),
    "a scaling that there is not": (
        {"decoder": {"layer": {"branches": {"self_attention": {"position": {"scaling": {"name": "yarm"}}}}}}},
        r"decoder\.layer\.branches\.self_attention\.position\.scaling\.name: found 'yarm', expected one of .*'yarn'",
    ),
    "rope over an odd head": (
        {"decoder": {"layer": {"branches": {"self_attention": {"head_dim": 63}}}}},
        r"decoder\.layer\.branches\.self_attention\.position: found rope over a head_dim of 63",
    ),
    "a kernel that cannot cap": (
        {"decoder": {"layer": {"branches": {"self_attention": {"kernel": "sdpa"}}}}},
        r"sdpa cannot",
    ),
    "a tied table of another width": ({"head": {"tie": "encoder"}, "encoder": {"width": 128}}, r"head\.tie"),
    "a tied table that is not there": ({"head": {"tie": "both"}}, r"head\.tie"),
    "cross-attention without an encoder": (
        {"assembly": "decoder_only", "encoder": None},
        r"decoder\.layer\.branches\.cross_attention: found cross_attention in a stack without a source",
    ),
    "a missing stack": ({"decoder": None}, r"decoder: found nothing, expected a stack"),
    "a stack too many": ({"assembly": "encoder_only"}, r"decoder: found a stack, expected none"),
    "a token outside the vocabulary": ({"tokens": {"eos": [1, 256000]}}, r"tokens\.eos\[1\]"),
    "a branch that order does not name": (
        {"decoder": {"layer": {"branches": {"extra": {"name": "mlp", "hidden": 4}}}}},
        r"decoder\.layer\.branches\.extra: found a branch that order does not name",
    ),
    "a misspelt branch, whose fields are missing": (
        {"encoder": {"layer": {"branches": {"attention": {"name": "differential_attention"}}}}},
        r"encoder\.layer\.branches\.attention: found a branch that order does not name, expected one of self_attention, "
        r"feed_forward\. Did you mean 'self_attention'\? To add a branch of this name, name it in order too\.$",
    ),
    "a branch that order names, of which a field is missing": (
        {"encoder": {"layer": {"order": ["self_attention", "more", "feed_forward"], "branches": {"more": {"name": "mlp"}}}}},
        r"encoder\.layer\.branches\.more\.hidden: found nothing, expected a value: this field is required",
    ),
    "a branch twice in order": ({"decoder": {"layer": {"order": ["self_attention"] * 2}}}, r"decoder\.layer"),
    "a schema version before the first": ({"schema_version": 0}, r"schema_version: found 0, expected a number greater than or"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_specs_that_do_not_fit_are_refused_with_their_path(what: str) -> None:
    patch, message = REFUSED[what]
    with pytest.raises(SpecError, match=message):
        pairform.load_spec("t5gemma-s-s", patch)


@settings(max_examples=200)
@given(broken_documents("t5gemma-s-s"))
def test_a_broken_document_is_a_spec_error_or_still_a_spec(broken: tuple[str, dict[str, Any]]) -> None:
    _, document = broken
    try:
        spec = pairform.load_spec(document)
    except SpecError as error:
        assert all(problem.where and problem.found and problem.expected for problem in error.problems)
    else:
        assert pairform.load_spec(spec.document()) == spec
