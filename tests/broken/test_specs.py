"""A spec that cannot be read, in a file or in memory, is a `SpecError` that names the file and the place in it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pairform
from pairform.registry import SpecError, join_path
from tests.broken.damage import refused
from tests.documents import paths

PRESET = "t5gemma-9b-2b"
DOCUMENT: dict[str, Any] = pairform.load_spec(PRESET).document()
HEADS = "decoder.layer.branches.self_attention.heads"


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"layer": document}
    return document


def holding_itself() -> dict[str, Any]:
    document = {"extends": PRESET}
    document["decoder"] = document  # type: ignore[assignment]
    return document


FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "not JSON": ("{", ("JSON document",)),
    "empty": ("", ("JSON document",)),
    "not UTF-8": (b"\xff\xfe{}", ("utf-8",)),
    "a list": ("[1, 2]", ("[1, 2]", "a JSON object")),
    "a key twice among many": ("{" + ", ".join(f'"k{n}": 0' for n in [*range(200_000), 199_999]) + "}", ("'k199999' twice",)),
    "half a character": ('{"extends": "\\ud800"}', ("extends", "half a character")),
    "a number beyond the largest float": ('{"initializer_range": 1e400}', ("initializer_range", "inf")),
    "a key twice": ('{"extends": "gemma-2-2b", "decoder": {"depth": 2, "depth": 3}}', ("'depth' twice",)),
    "NaN": ('{"extends": "gemma-2-2b", "initializer_range": NaN}', ("NaN", "JSON does not have")),
    "infinity": ('{"extends": "gemma-2-2b", "initializer_range": 1e999}', ("initializer_range", "inf")),
    "a number of 5000 digits": (f'{{"vocabulary": {"9" * 5000}}}', ("digits",)),
    "deep": (json.dumps({"extends": PRESET, "decoder": nested(200)}), ("nested too deeply",)),
    "too deep to read": ("[" * 100_000, ("nested too deeply",)),
    "extends nothing": ('{"extends": null, "vocabulary": 5}', ("assembly", "required")),
    "extends a number": ('{"extends": 5}', ("extends", "5", "a string")),
    "extends a missing file": ('{"extends": "nowhere.json"}', ("extends", "nowhere.json")),
    "extends a name too long": (json.dumps({"extends": "x" * 5000}), ("extends",)),
    "extends a misspelt preset": ('{"extends": "gemma-2-2"}', ("extends", "Did you mean gemma-2-2b")),
    "extends no such stack": (f'{{"extends": "{PRESET}", "decoder": {{"extends": "gemma-2-2b#encoder"}}}}', ("#decoder",)),
    "extends itself": ('{"extends": "spec.json"}', ("extends", "A document extends itself")),
    "extends itself in a part": (f'{{"extends": "{PRESET}", "encoder": {{"extends": "spec.json"}}}}', ("extends itself",)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_spec_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    content, words = FILES[kind]
    file = tmp_path / "spec.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: pairform.load_spec(file), "spec.json", *words)


@pytest.mark.parametrize("ref", [5, None, ["gemma-2-2b"], b"gemma-2-2b", "", "x\0y", "~nobody/spec.json", "x" * 5000])
def test_what_names_no_spec_is_refused(ref: Any) -> None:
    refused(lambda: pairform.load_spec(ref))


@pytest.mark.parametrize("document", [nested(200), holding_itself(), {"extends": PRESET, "decoder": nested(10_000)}])
def test_endless_nesting_in_memory_is_refused(document: dict[str, Any]) -> None:
    refused(lambda: pairform.load_spec(document), "nested too deeply")
    refused(lambda: pairform.load_spec(PRESET, document), "nested too deeply")
    refused(lambda: pairform.patch(pairform.load_spec(PRESET), document), "nested too deeply")


@pytest.mark.parametrize("patch", [[1], "x", 5, [("depth", 2)], {1, 2}])
def test_a_patch_that_is_no_object_is_refused(patch: Any) -> None:
    refused(lambda: pairform.patch(pairform.load_spec(PRESET), patch), "patch", "a JSON object")
    refused(lambda: pairform.load_spec(PRESET, patch), "patch", "a JSON object")
    refused(lambda: pairform.load_spec(DOCUMENT, patch), "patch", "a JSON object")


@pytest.mark.parametrize(
    "field", ["vocabulary", "decoder.width", "decoder.depth", "decoder.layer.branches.feed_forward.hidden", HEADS]
)
@pytest.mark.parametrize("value", [2**30, 10**30, 10**400])
def test_sizes_that_no_model_can_have_are_refused_at_once(field: str, value: int) -> None:
    document: Any = value
    for key in reversed(field.split(".")):
        document = {key: document}
    refused(lambda: pairform.load_spec(PRESET, document), field)


def test_sizes_whose_product_no_tensor_can_have_are_refused() -> None:
    heads = {"heads": 2**29, "kv_heads": 1, "head_dim": 2**29}
    refused(lambda: pairform.load_spec("gemma-2-2b", {"decoder": {"layer": {"branches": {"self_attention": heads}}}}), HEADS)


def branch_named(name: str) -> dict[str, Any]:
    """A patch that adds a branch to every layer of the decoder."""
    branches = {"feed_forward": None, name: {"name": "mlp", "activation": "relu", "hidden": 8}}
    return {"decoder": {"layer": {"order": ["self_attention", name], "branches": branches}}}


@pytest.mark.parametrize("name", ["layer_input", "output_scale", "spec", "forward", "training", "parameters"])
def test_a_branch_does_not_take_the_name_of_another_part_of_its_layer(name: str) -> None:
    refused(lambda: pairform.load_spec("gemma-2-2b", branch_named(name)), f"layer.branches.{name}", "Rename the branch")


def test_every_attribute_of_a_layer_is_a_name_that_no_branch_takes() -> None:
    own = {"layer_input": {"channels": 2, "norm": {"name": "rmsnorm"}}, "layer": {"output_scale": "stored"}}
    spec = pairform.load_spec("gemma-2-2b", {"vocabulary": 16, "decoder": {"width": 8, "depth": 1, **own}})
    layer = pairform.build(spec, device="meta").get_submodule("decoder.layers.0")
    names = {name for name in dir(layer) if not name.startswith("_")} - {*spec.last.layers[0].present}
    names -= {"smart_apply"}  # transformers adds it to torch's class when it initialises a model
    assert names > {"layer_input", "output_scale"}
    for name in names:
        refused(lambda name=name: pairform.load_spec("gemma-2-2b", branch_named(name)), name)  # type: ignore[misc]


def put(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """`DOCUMENT` with `value` at `path`."""
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return document


WRONG_TYPES: list[Any] = [{"x": 1}, [{}], [[]], object(), b"x", {1: 2}, {"name": ["self_attention"]}, {"name": {}}]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(paths(DOCUMENT), key=str)), st.sampled_from(WRONG_TYPES))
def test_a_value_of_the_wrong_type_is_named_with_its_path(path: tuple[str | int, ...], value: Any) -> None:
    where = join_path(*(f"[{part}]" if isinstance(part, int) else part for part in path))
    try:
        pairform.load_spec(put(path, value))
    except SpecError as error:
        assert any(problem.where.startswith(where) or where.startswith(problem.where) for problem in error.problems)
    else:
        assert "overrides" in where or "cycle" in where or where == "$schema", "only patches may hold anything"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted((path for path in paths(DOCUMENT) if "cycle" not in path), key=str)))
def test_an_unknown_field_is_named_with_its_path(path: tuple[str | int, ...]) -> None:
    outer, where = path[:-1], join_path(*(str(part) for part in path[:-1]), "colour")
    if any(isinstance(part, int) for part in path):
        return
    with pytest.raises(SpecError) as caught:
        pairform.load_spec(put((*outer, "colour"), "blue"))
    assert any(problem.where.startswith(where) and "blue" in problem.found for problem in caught.value.problems)
