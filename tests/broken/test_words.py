"""What an error says: in our words, with the path in the JSON, and with the name that was meant."""

import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, core_schema

import pairform
from pairform.experiments.study.spec import StudySpec
from pairform.registry import SpecError, printable
from pairform.registry.validation import problem_of
from tests.broken.damage import refused
from tests.documents import broken_documents

PRESET = "t5gemma-9b-2b"
PYDANTIC = re.compile(
    r"Input should|Value error|Extra inputs|Field required|valid (integer|list|tuple|dictionary|string|number)|pydantic"
)
MEMBERS = re.compile(r"tuple\[|constrained-|function-|literal\[|\.(int|str|float|bool)\b")
"""Steps of pydantic's own in a path: the names of a union's types."""


def patched(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    document: dict[str, Any] = value
    return document


SELF = "decoder.layer.branches.self_attention"
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "a field of a stack": (
        patched("decoder.dept", 4),
        "decoder.dept: found an unknown field with value 4, expected one of cycle, depth, .* Did you mean 'depth'",
    ),
    "a field of a block": (patched(f"{SELF}.head", 4), rf"{SELF}.head: found .* Did you mean 'heads'"),
    "a field inside a block": (patched(f"{SELF}.mask.causl", True), r"one of causal, prefix, window. Did you mean 'causal'"),
    "a field of one kind of several": (
        patched(f"{SELF}.position.scaling", {"name": "yarn", "factor": 2.0, "original_length": 8, "truncat": True}),
        r"scaling.truncat: .*beta_fast.* Did you mean 'truncate'",
    ),
    "a field of the model": (patched("$schem", "x"), r"\$schem: .* Did you mean '\$schema'"),
    "a field of an override": (
        patched("decoder.overrides", [{"layer": [1]}]),
        r"overrides\[0\].layer: .* Did you mean 'layers'",
    ),
    "a name among few": (
        patched("decoder.layer.placement", "pree"),
        "found 'pree', expected .* Did you mean 'pre'",
    ),
    "a kind of several": (
        patched(f"{SELF}.position.scaling.name", "yarm"),
        r"scaling.name: found 'yarm', expected one of .* Did you mean 'yarn'",
    ),
    "a whole number": (patched("decoder.width", 2.5), "decoder.width: found 2.5, expected a whole number"),
    "an object": (patched("decoder.layer", []), r"decoder.layer: found \[\], expected an object"),
    "true or false": (patched("tie_embeddings", 1), "tie_embeddings: found 1, expected true or false"),
    "neither type of a union": (patched("tokens.eos", "x"), "tokens.eos: found 'x', expected a whole number or a list"),
    "an item of a union's list": (patched("tokens.eos", [1, "x"]), r"eos\[1\]: found 'x', expected a whole number"),
    "a union with a bound": (
        patched("head.scale", -1),
        "head.scale: found -1, expected 'inverse_sqrt_width' or a number greater than 0",
    ),
    "an item that is missing": (patched(f"{SELF}.mask.window", [1]), r"mask.window\[1\]: found nothing, expected a value"),
    "an item too many": (patched(f"{SELF}.mask.window", [1, 2, 3]), r"mask.window: found \[1, 2, 3\], expected at most 2"),
}


@pytest.mark.parametrize("what", SAID)
def test_an_error_says_what_was_found_and_what_was_meant(what: str) -> None:
    patch, message = SAID[what]
    with pytest.raises(SpecError) as caught:
        pairform.load_spec(PRESET, patch)
    told = [str(problem) for problem in caught.value.problems]
    assert any(re.search(message, line) for line in told), told
    assert not any(PYDANTIC.search(line) or MEMBERS.search(line.partition(": found")[0]) for line in told)


@settings(max_examples=150)
@given(broken_documents("t5gemma2-270m-270m"))
def test_no_error_speaks_of_pydantic(broken: tuple[str, dict[str, Any]]) -> None:
    try:
        pairform.load_spec(broken[1])
    except SpecError as error:
        for problem in error.problems:
            assert not PYDANTIC.search(str(problem))
            assert not MEMBERS.search(problem.where)


class Held(BaseModel):
    """An error's place in no document."""

    field: int


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_every_error_that_pydantic_has_is_told_in_our_words(kind: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Held.model_validate({"field": "x"})
    detail: ErrorDetails = {**caught.value.errors()[0], "type": kind, "ctx": Context()}
    assert not PYDANTIC.search(str(problem_of(detail, "field", [Held])))


class Context(dict[str, Any]):
    """Whatever an error's template asks for."""

    def __missing__(self, key: str) -> str:
        return f"the {key}"


def test_a_study_names_the_field_that_was_meant() -> None:
    with pytest.raises(SpecError, match=r"variantz: found an unknown field .* Did you mean 'variants'"):
        StudySpec.read({"name": "x", "base": PRESET, "variantz": {}, "data": {"name": "copy"}})


@pytest.mark.parametrize("block", [5, "rmsnorm", int, type("Bare", (), {"Spec": None}), pairform.BlockSpec])
def test_what_is_no_block_cannot_be_registered(block: Any) -> None:
    refused(lambda: pairform.register("norm")(block), "expected")


@pytest.mark.parametrize("kind", ["nrom", 5, None, ["norm"]])
def test_a_block_of_an_unknown_kind_cannot_be_registered(kind: Any) -> None:
    refused(lambda: pairform.register(kind), "kind: found", "norm, residual")


def test_reprs_are_short_and_say_where_the_whole_is() -> None:
    spec = pairform.load_spec("t5gemma2-4b-1b")
    assert "encoder of 34 layers, width 2560" in repr(spec)
    assert "document()" in repr(spec)
    assert spec.decoder is not None
    for each in (spec, spec.decoder, spec.decoder.layer, spec.decoder.layer.norm, spec.head, spec.tokens):
        assert len(repr(each)) < 250
        assert "\n" not in repr(each)
        assert str(each) == repr(each)
    assert repr(spec.decoder.layer.norm) == "RMSNorm.Spec(name='rmsnorm', eps=1e-06, unit_offset=True, affine=True)"


CODES = "\x1b]0;t\x07\x1b[2J\r\u202e"


@pytest.mark.parametrize("form", ["svg", "mermaid"])
def test_a_diagram_holds_no_control_characters(form: Any) -> None:
    head = {"name": "sequence_classification", "labels": [f"a{CODES}", "b"]}
    text = pairform.diagram("t5gemma-s-s", form, old=pairform.patch("t5gemma-s-s", {"head": head}), title=f"x{CODES}")
    assert all(line.isprintable() for line in text.split("\n"))
    assert printable(CODES) in text or form == "mermaid"
