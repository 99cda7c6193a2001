"""`pairform blocks`: the catalogue and one block's page."""

import json

import pytest

import pairform
from tests.catalogue.places import BLOCKS
from tests.command_line.runner import CommandLine, document, refused


def test_a_page_says_what_a_block_is_takes_and_follows(run: CommandLine) -> None:
    text = " ".join(run("blocks", "attention", "self_attention").out.split())
    for words in (
        "attention self_attention",
        "Multi-head self-attention",
        "hidden [batch, length, width] -> [batch, length, width]",
        "branches of a layer",
        '{"name": "self_attention", "heads": 8}',
        "heads integer > 0 required",
        "mask.window",
    ):
        assert words in text
    assert "https://arxiv.org/abs/1910.07467" in run("blocks", "norm", "rmsnorm").out
    refusal = "an encoder or a decoder alone (expected a decoder with an encoder)"
    assert refusal in " ".join(run("blocks", "attention", "cross_attention").out.split())


def test_a_page_as_json(run: CommandLine) -> None:
    page = document(run("blocks", "position", "rope", "--json"))
    assert (page["kind"], page["name"], page["example"]) == ("position", "rope", {"name": "rope"})
    assert page["papers"] == ["2104.09864", "2204.06745"]
    assert any(place.startswith("position of attention") for place in page["fits"])
    options = {option["path"]: option for option in page["options"]}
    assert options["theta"] == {
        "path": "theta",
        "type": "number > 0",
        "default": "10000.0",
        "required": False,
        "says": "Base of the rotation frequencies `theta ** (-2 i / channels)`.",
    }
    assert options["scaling.factor (yarn)"]["required"]


@pytest.mark.parametrize(("kind", "name"), BLOCKS, ids=lambda word: word)
def test_every_block_has_a_page_with_all_its_options(run: CommandLine, kind: str, name: str) -> None:
    page = document(run("blocks", kind, name, "--json"))
    fields = {option["path"].partition(".")[0].partition(" ")[0] for option in page["options"]}
    assert fields == set(pairform.blocks(kind)[name].Spec.model_fields) - {"name"}
    assert page["text"]
    assert all(option["says"] for option in page["options"])
    assert page["fits"]
    assert " -> " in page["shapes"]
    text = run("blocks", kind, name).out
    assert json.dumps(page["example"])[:40] in text
    assert all(option["path"] in text for option in page["options"])


def test_a_wrong_kind_or_name_is_an_error_that_tells_near_ones(run: CommandLine) -> None:
    refused(run("blocks", "nrm"), 1, "found 'nrm'", "Did you mean 'norm'?")
    refused(run("blocks", "norm", "rmsnrm"), 1, "found 'rmsnrm'", "Did you mean 'rmsnorm'?")
    refused(run("blocks", "rope"), 1, "found 'rope', a block's name", "`pairform blocks position rope`")
