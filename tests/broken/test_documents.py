"""What a stranger's document may ask for: it ends in an error, or in a spec, soon and without much memory."""

import json
import os
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.assemblies.modeling.layer import Layer
from pairform.assemblies.specs.model import LayerSpec
from pairform.registry import InputError, SpecError, read_json
from tests.broken.damage import refused

PRESET = "t5gemma-s-s"
LONGEST = 2000
"""Characters of a message."""


def write(folder: Path, name: str, document: Any) -> Path:
    (folder / name).write_text(json.dumps(document))
    return folder / name


def test_a_long_chain_of_documents_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "0.json", {"extends": PRESET})
    for number in range(1, 3001):
        write(tmp_path, f"{number}.json", {"extends": f"{number - 1}.json"})
    refused(lambda: pairform.load_spec(tmp_path / "3000.json"), "extends", "more than 64 documents")
    assert pairform.load_spec(tmp_path / "40.json") == pairform.load_spec(PRESET)


def test_a_document_that_is_extended_again_and_again_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "0.json", {"extends": PRESET})
    for number in range(1, 31):
        base = f"{number - 1}.json"
        write(tmp_path, f"{number}.json", {"extends": base, "encoder": {"extends": base}, "decoder": {"extends": base}})
    read: list[Path] = []

    def reading(file: Path, limit: int) -> Any:
        read.append(file)
        return read_json(file, limit)

    monkeypatch.setattr("pairform.registry.documents.read_json", reading)
    assert pairform.load_spec(tmp_path / "30.json") == pairform.load_spec(PRESET)
    assert sorted(file for file in read if file.parent == tmp_path) == sorted(
        tmp_path / f"{number}.json" for number in range(30)
    )


def test_two_stacks_of_one_document_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, "unequal.json", {"extends": "t5gemma2-4b-1b"})
    document = {"extends": "unequal.json", "encoder": {"extends": "unequal.json"}, "decoder": {"extends": "unequal.json"}}
    assert pairform.load_spec(write(tmp_path, "both.json", document)) == pairform.load_spec("t5gemma2-4b-1b")


def test_a_cycle_whose_text_never_repeats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    document = write(tmp_path, "spec.json", {"extends": "x/../spec.json"})
    refused(lambda: pairform.load_spec(document), "A document extends itself")


@pytest.mark.parametrize("ref", ["/dev/zero", "pipe", "/etc/passwd"])
def test_what_is_no_document_is_not_waited_for(ref: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: pairform.load_spec(write(tmp_path, "spec.json", {"extends": ref})), ref)


def test_documents_that_are_too_large_are_refused(tmp_path: Path) -> None:
    large = write(tmp_path, "large.json", {"extends": PRESET, "labels": "x" * (5 << 20)})
    refused(lambda: pairform.load_spec(large), "bytes, more than the limit")
    refused(lambda: pairform.load_spec({"extends": str(large)}), "bytes, more than the limit")
    for number in range(8):
        base = f"{number - 1}.json" if number else PRESET
        write(tmp_path, f"{number}.json", {"extends": base, "$schema": "x" * (1 << 20)})
    assert pairform.load_spec(tmp_path / "2.json") == pairform.load_spec(PRESET)
    refused(lambda: pairform.load_spec(tmp_path / "7.json"), "extends", "bytes in all")


def test_a_models_folder_extends_nothing_outside_it(tmp_path: Path) -> None:
    write(tmp_path, "secret.json", {"extends": PRESET})
    folder = tmp_path / "model"
    folder.mkdir()
    for ref in ("../secret.json", str(tmp_path / "secret.json"), "link.json"):
        (folder / "link.json").unlink(missing_ok=True)
        (folder / "link.json").symlink_to(tmp_path / "secret.json")
        write(folder, "spec.json", {"extends": ref})
        refused(lambda: pairform.load_spec(folder), "spec.json: extends", ref, "a file in the model's folder")
        refused(lambda: pairform.load_spec({"extends": str(folder)}), "a file in the model's folder")
    write(folder, "base.json", {"extends": PRESET})
    write(folder, "spec.json", {"extends": "base.json"})
    assert pairform.load_spec(folder) == pairform.load_spec(PRESET)
    own = write(tmp_path, "mine.json", {"extends": "model", "encoder": {"extends": "secret.json"}})
    assert pairform.load_spec(own) == pairform.load_spec(PRESET), "one's own document reaches everything"


class Broken:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError


def seen_again(levels: int) -> dict[str, Any]:
    """A few dicts that are 2 ** levels when they are written out."""
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document, "b": document}
    return document


NO_JSON: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a set": ({1, 2}, ("{1, 2} of type set",)),
    "bytes": (b"x", ("b'x' of type bytes",)),
    "an object": (Broken(), ("an object of type Broken",)),
    "a tensor": (torch.zeros(3), ("of type Tensor",)),
    "keys that are no strings": ({1: 2}, ("the key 1 of type int",)),
    "NaN": (float("nan"), ("nan", "a finite number")),
    "infinity": ([float("inf")], ("inf",)),
    "a number of thousands of digits": (10**5000, ("a whole number of 16610 bits",)),
    "half a character": ("\ud800", ("half a character",)),
    "more values than a document has": ([0] * 300_000, ("more than 200,000 values",)),
    "a few dicts that are very many": (seen_again(50), ("more than 200,000 values",)),
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_what_json_does_not_have_is_refused_with_its_path(kind: str) -> None:
    value, words = NO_JSON[kind]
    patch = {"decoder": {"cycle": [{"branches": {"self_attention": value}}]}}
    where = "decoder.cycle[0].branches.self_attention" if "values" not in words[0] else ""
    for call in (
        lambda: pairform.load_spec(PRESET, patch),
        lambda: pairform.load_spec({"extends": PRESET, **patch}),
        lambda: pairform.patch(PRESET, patch),
    ):
        assert len(refused(call, where, *words)) < LONGEST


def test_mappings_and_tuples_are_json() -> None:
    patch: Mapping[str, Any] = UserDict({"decoder": UserDict({"cycle": ({"dropout": 0.5}, {})})})
    assert pairform.load_spec(PRESET, patch) == pairform.load_spec(PRESET, {"decoder": {"cycle": [{"dropout": 0.5}, {}]}})


MANY: dict[str, tuple[dict[str, Any], str]] = {
    "unknown fields": ({f"field{number}": number for number in range(150_000)}, "field0"),
    "overrides": ({"decoder": {"overrides": [{}] * 150_000}}, "decoder.overrides"),
    "turns": ({"decoder": {"cycle": [1] * 999}}, "problems"),
    "branches": (
        {"decoder": {"layer": {"branches": {f"b{number}": {"name": "mlp", "hidden": 1} for number in range(20_000)}}}},
        "decoder.layer.branches",
    ),
    "kinds of layers": (
        {
            "decoder": {
                "depth": 1000,
                "cycle": [{"dropout": number / 2000} for number in range(1000)],
                "overrides": [{"layers": list(range(1000)), "patch": {}}] * 10,
            }
        },
        "kinds",
    ),
    "overrides of one layer": ({"decoder": {"overrides": [{"layers": [0], "patch": {}}] * 1001}}, "1,000"),
    "layers": ({"decoder": {"depth": 1001}}, "decoder.depth"),
    "experts": (
        {
            "decoder": {
                "layer": {"branches": {"feed_forward": {"name": "mixture", "experts": 10**6, "expert": {"name": "mlp"}}}}
            }
        },
        "experts",
    ),
    "end tokens": ({"tokens": {"eos": list(range(1001))}}, "tokens.eos"),
    "a long name": ({"decoder": {"layer": {"norm": {"name": "x" * 10**7}}}}, "decoder.layer.norm.name"),
}


@pytest.mark.parametrize("what", MANY)
def test_very_many_of_anything_is_refused_in_few_words(what: str) -> None:
    patch, word = MANY[what]
    with pytest.raises(SpecError) as caught:
        pairform.load_spec(PRESET, patch)
    assert word in str(caught.value) or any(word in str(problem) for problem in caught.value.problems)
    assert len(str(caught.value)) < LONGEST


def test_the_deepest_stack_is_validated_and_counted_by_kinds_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[LayerSpec] = []

    class Counted(Layer):
        def __init__(self, spec: LayerSpec, *others: Any) -> None:
            super().__init__(spec, *others)
            built.append(spec)

    monkeypatch.setattr("pairform.assemblies.modeling.stack.Layer", Counted)
    found = pairform.inspect(pairform.load_spec(PRESET, {"decoder": {"depth": 1000}}), source_length=2, target_length=2)
    each = pairform.inspect(PRESET, source_length=2, target_length=2).parameters
    norm = 512
    assert found.parameters["decoder"] - norm == (each["decoder"] - norm) // 8 * 1000
    assert len(built) == 2 * 4


@pytest.mark.parametrize("seed", ["1", 1.0, True, [1], torch.tensor(1.5), object()])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(InputError, match="seed: found"):
        pairform.build(PRESET, device="meta", seed=seed)


def test_what_reads_a_spec_takes_a_presets_name() -> None:
    spec = pairform.load_spec(PRESET)
    patched = pairform.patch(PRESET, {"vocabulary": 300_000})
    assert patched == pairform.patch(spec, {"vocabulary": 300_000})
    assert pairform.diff(PRESET, patched) == {"vocabulary": (256_000, 300_000)}
    assert pairform.diagram(PRESET, old="t5gemma-b-b") == pairform.diagram(spec, old=pairform.load_spec("t5gemma-b-b"))
    for call in (pairform.inspect, pairform.diagram, pairform.build, lambda ref: pairform.patch(ref, {})):
        refused(lambda call=call: call("t5gemma-s-z"), "t5gemma-s-s")  # type: ignore[misc]


def test_a_diagram_of_a_form_that_there_is_not_is_refused() -> None:
    for form in ("png", 5, None, ["svg"]):
        refused(lambda form=form: pairform.diagram(PRESET, form), "form: found", "mermaid or svg")  # type: ignore[misc]
