"""A patch knows what stands where it reaches, and settings mean the same in any order."""

import itertools
from typing import Any

import pytest

import pairform
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import SpecError, merge_patch, parse_settings
from tests.initialisation.small_models import alone, attention, stack

YARN = {"name": "yarn", "factor": 8.0, "original_length": 64, "beta_fast": 16.0}


def patched(layer: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The document of a layer that a patch was applied to."""
    spec = pairform.load_spec(alone(stack(1, **layer)), {"decoder": {"layer": patch}})
    assert spec.decoder is not None
    return spec.decoder.layer.document()


def turned(scaling: dict[str, Any]) -> dict[str, Any]:
    return {"branches": {"self_attention": {"position": {"name": "rope", "scaling": scaling}}}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", {"name": "linear", "factor": 8.0}),
        ("dynamic", {"name": "dynamic", "factor": 8.0, "original_length": 64}),
        ("default", {"name": "default"}),
    ],
)
def test_a_scaling_keeps_the_fields_that_the_new_one_has(name: str, expected: dict[str, Any]) -> None:
    """`linear` is the name of a bridge too, which has no factor."""
    own = attention(mask={"causal": True}, position={"name": "rope", "scaling": YARN})
    made = patched(
        {"branches": {"self_attention": own}}, {"branches": {"self_attention": {"position": {"scaling": {"name": name}}}}}
    )
    assert made["branches"]["self_attention"]["position"]["scaling"] == expected


def test_the_slot_says_which_block_a_name_means() -> None:
    """`gated` is a residual and a feed-forward block."""
    scaled = {"residual": {"name": "scaled", "scale": 0.5}}
    assert patched(scaled, {"residual": {"name": "gated"}})["residual"] == {"name": "gated", "bias": -2.0}
    assert patched({}, {"branches": {"feed_forward": {"name": "gated"}}})["branches"]["feed_forward"]["hidden"] == 24


def test_a_block_that_is_not_known_makes_way() -> None:
    document = {"head": {"name": "of_another_package", "softcap": 3.0, "layers": 5}}
    assert merge_patch(document, {"head": {"name": "lm"}}, ModelSpec) == {"head": {"name": "lm", "softcap": 3.0}}


@pytest.mark.parametrize("name", ["linear", "none", "gated", "token"])
def test_a_name_where_no_block_stands_is_a_field_as_any_other(name: str) -> None:
    document = {"name": "first", "base": {"depth": 1}, "vocabulary": 3}
    for spec in (None, ModelSpec):
        assert merge_patch(document, {"name": name}, spec) == document | {"name": name}
    block = {"name": "mlp", "hidden": 3}
    assert merge_patch({"other": block}, {"other": {"name": name}}, ModelSpec) == {"other": block | {"name": name}}


SETTINGS = ["a.b=3", 'a={"c": {"d": [1, 2]}}', "a.c.e=x", "f=null", "a.g=1.5"]


def test_settings_mean_the_same_in_any_order() -> None:
    expected = {"a": {"b": 3, "c": {"d": [1, 2], "e": "x"}, "g": 1.5}, "f": None}
    for order in itertools.permutations(SETTINGS):
        assert parse_settings(list(order)) == expected
    assert parse_settings([*SETTINGS, "a.b=3", 'a={"g": 1.5}']) == expected, "said twice"


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ("a=1", "a=2", "a set to"),
        ("a.b=1", "a=2", "a set to"),
        ("a.b=1", "a=null", "a set to"),
        ("a.b=1", 'a={"b": 1.0}', "a.b set to"),
        ("a.b=true", 'a={"b": 1}', "a.b set to"),
        ("a.b.c=1", "a.b=[1]", "a.b set to"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_any_order(one: str, other: str, path: str) -> None:
    for order in ([one, other], [other, one]):
        with pytest.raises(SpecError, match=path):
            parse_settings(order)
