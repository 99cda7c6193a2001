"""The JSON Schema, checked with jsonschema: it takes every preset, and refuses what the specs refuse by shape."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import pairform
from pairform.experiments.study.schema import study_schema
from pairform.registry import locate, read_json
from pairform.training.adaptation.schema import recipe_schema
from tests.catalogue.any_spec import documents
from tests.documents import WRONG, broken_documents, paths
from tests.studies.small_study import STUDY

SCHEMA = Draft202012Validator(pairform.schema())
Edit = Callable[[dict[str, Any]], object]


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(pairform.schema())


@pytest.mark.parametrize("name", pairform.presets())
def test_presets_are_valid_as_written_and_expanded(name: str) -> None:
    SCHEMA.validate(read_json(locate(name, Path())))
    SCHEMA.validate(pairform.load_spec(name).document())


STUDIES = Draft202012Validator(study_schema())
RECIPES = Draft202012Validator(recipe_schema())
FENCE = re.compile(r"^```json file=\S+\n(.*?)^```", re.DOTALL | re.MULTILINE)


def written_in(page: str) -> list[dict[str, Any]]:
    """The documents that a page of docs/ shows."""
    return [json.loads(text) for text in FENCE.findall(Path("docs", page).read_text("utf-8"))]


def test_documented_studies_are_valid() -> None:
    Draft202012Validator.check_schema(study_schema())
    studies = [*written_in("study.md"), read_json(Path("examples/table1/study.json"))]
    assert len(studies) > 3
    for study in studies:
        STUDIES.validate(study)


@pytest.mark.parametrize(
    "patch",
    [
        {"seed": [0]},
        {"training": {"steps": "many"}},
        {"variants": {"a": {"decoder": {"dept": 2}}}},
        {"variants": {"a": {"training": {"optimizer": {"rate": 1}}}}},
        {"variants": {}},
        {"base": {"extends": "t5gemma-s-s", "decoder": {"width": "wide"}}},
        {"weights": {"convert": {"cross_attention": "guessed"}}},
        {"comparison": {"margins": {"perplexity": 0.1}}},
        {"data": {"name": "copied"}},
    ],
)
def test_the_schema_of_studies_refuses_what_cannot_be_run(patch: dict[str, Any]) -> None:
    assert STUDIES.is_valid(STUDY)
    assert not STUDIES.is_valid(STUDY | patch)


def test_a_variant_may_remove_a_block_and_change_its_training() -> None:
    no_cross = {"decoder": {"layer": {"branches": {"cross_attention": None}}}, "training": {"clip": None}, "weights": "new"}
    STUDIES.validate(STUDY | {"variants": {"a": {}, "b": no_cross}})


def test_the_schema_of_recipes_takes_documented_ones_and_refuses_others() -> None:
    Draft202012Validator.check_schema(recipe_schema())
    recipes = [read_json(Path("examples/adaptation", name)) for name in ("adapt.json", "pretrain.json")]
    for recipe in recipes:
        RECIPES.validate(recipe)
        assert not RECIPES.is_valid(recipe | {"clip": "some"})
    RECIPES.validate({"extends": "p2-ul2", "steps": None, "tokens": 10, "skip_step": None})
    assert not RECIPES.is_valid({"extends": "p9"})
    assert not RECIPES.is_valid({"steps": 5})


def branch(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["decoder"]["layer"]["branches"][name]
    return found


BROKEN: dict[str, Edit] = {
    "an unknown field of the model": lambda d: d.update(vocab=3),
    "an unknown field of a stack": lambda d: d["decoder"].update(layers=3),
    "an unknown field of a block": lambda d: branch(d, "self_attention").update(n_heads=3),
    "an unknown block": lambda d: branch(d, "self_attention").update(name="self_atention"),
    "a block of another kind": lambda d: d["decoder"]["layer"].update(norm={"name": "gated", "hidden": 3}),
    "a string for a number": lambda d: d["decoder"].update(width="2304"),
    "a number below its bound": lambda d: branch(d, "self_attention").update(heads=0),
    "a choice that is none": lambda d: d["decoder"]["layer"].update(placement="middle"),
    "a window of three": lambda d: branch(d, "self_attention").update(mask={"window": [1, 2, 3]}),
    "an unknown field in the cycle": lambda d: d["decoder"].update(cycle=[{"branch": {}}]),
    "an unknown field in an override": lambda d: d["decoder"].update(overrides=[{"layers": [0], "patch": {"placemnt": "pre"}}]),
    "no width": lambda d: d["decoder"].pop("width"),
    "no assembly": lambda d: d.pop("assembly"),
    "a scaling without a name": lambda d: branch(d, "self_attention")["position"].update(scaling={"factor": 8.0}),
    "an unknown field in a turn of the cycle that no layer has": lambda d: d["decoder"].update(depth=1, cycle=[{}, {"x": 1}]),
    "a block of another kind in an override of no layer": lambda d: d["decoder"].update(
        overrides=[{"layers": [], "patch": {"norm": {"name": "gated"}}}]
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_documents_are_refused_by_schema_and_spec(what: str) -> None:
    document = copy.deepcopy(pairform.load_spec("t5gemma-2b-2b").document())
    BROKEN[what](document)
    assert not SCHEMA.is_valid(document)
    with pytest.raises(pairform.PairformError):
        pairform.load_spec(document)


@pytest.mark.parametrize(
    "patch",
    [
        {"decoder": {"layer": {"branches": {"cross_attention": None}}}},
        {"encoder": {"extends": "gemma-2-9b", "layer": {"branches": {"self_attention": {"mask": {"causal": False}}}}}},
        {"decoder": {"overrides": [{"layers": [-1], "patch": {"branches": {"feed_forward": {"name": "mlp"}}}}]}},
        {"head": {"name": "token_classification", "labels": 5}},
    ],
)
def test_patches_on_a_preset_are_valid_documents(patch: dict[str, Any]) -> None:
    document = {"extends": "t5gemma-2b-2b", **patch}
    SCHEMA.validate(document)
    pairform.load_spec(document)


@pytest.mark.parametrize(
    "document",
    [
        {"extends": "gemma-3-4b", "decoder": {"vision": {"tower": {"extends": "gemma-2-2b"}}}},
        {"extends": "gemma-2-2b", "decoder": {"layer": {"extends": "gemma-2-2b"}}},
    ],
)
def test_what_extends_where_nothing_can_is_refused_by_schema_and_spec(document: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(document)
    with pytest.raises(pairform.PairformError, match="extends"):
        pairform.load_spec(document)


@settings(max_examples=150)
@given(broken_documents("t5gemma-s-s"))
def test_what_the_schema_refuses_the_spec_refuses(broken: tuple[str, dict[str, Any]]) -> None:
    """The schema is never stricter than the spec: an editor does not mark what would load."""
    _, document = broken
    if not SCHEMA.is_valid(document):
        with pytest.raises(pairform.PairformError):
            pairform.load_spec(document)


SHAPES = ("a value: this field is required", "true or false", "a number", "a string", "a list", "an object")


@settings(max_examples=60)
@given(documents(), st.data())
def test_what_the_spec_refuses_by_shape_the_schema_refuses(document: dict[str, Any], data: st.DataObject) -> None:
    """Of any blocks. Where patches lie on a layer, a field may be wrong only with what is below, which no schema tells."""
    for part in ("encoder", "decoder"):
        document.get(part, {}).pop("cycle", None)
        document.get(part, {}).pop("overrides", None)
    *outer, last = data.draw(st.sampled_from(list(paths(document))))
    holder: Any = document
    for key in outer:
        holder = holder[key]
    if data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(st.sampled_from([value for value in WRONG if value == value]))  # but nan
    try:
        pairform.load_spec(document)
    except pairform.PairformError as error:
        shape = [problem for problem in error.problems if problem.expected in SHAPES or "an unknown field" in problem.found]
        assert not (shape and SCHEMA.is_valid(document)), shape
    else:
        SCHEMA.validate(document)
