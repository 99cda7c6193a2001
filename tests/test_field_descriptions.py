"""Every field that users write is described: in its class, and wherever the documentation promises a list of fields."""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

import pairform
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.assemblies.specs.scaling.scaled_model import ScaleSpec
from pairform.cli.fields import fields_of
from pairform.experiments.results.records import Trial
from pairform.experiments.study.spec import StudySpec
from pairform.registry import DocumentOf
from pairform.training.adaptation.recipe import Recipe
from pairform.training.adaptation.recipe_parts import Converted
from pairform.training.data.corpus.spec import CorpusSpec
from tests.command_line.runner import CommandLine, document
from tests.golden import BLOCKS, SCHEMA
from tests.registries import forget_new_blocks

Model = type[BaseModel]
WRITTEN: tuple[Model, ...] = (pairform.ModelSpec, ScaleSpec, GenerationSpec, Options, CorpusSpec, Recipe, StudySpec)
"""What users write in JSON or as arguments, besides blocks."""
OF_A_CALL = ("return_dict_in_generate", "output_scores", "output_logits")
"""Generation settings that `pairform generate` has no use for."""


def registered() -> list[tuple[str, str, Model]]:
    """The kind, name and spec of every block."""
    return [(kind, name, block.Spec) for kind, registry in pairform.blocks().items() for name, block in registry.items()]


def held(annotation: Any) -> Iterator[Model]:
    """The models that a type holds."""
    if isinstance(annotation, DocumentOf):
        yield annotation.spec
    elif inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from held(inner)


def parts(roots: typing.Iterable[Model]) -> set[Model]:
    """The models of documents, and those of all their parts."""
    found: set[Model] = set()
    left = list(roots)
    while left:
        model = left.pop()
        if model not in found:
            found.add(model)
            left += [each for field in model.model_fields.values() for each in held_by(field)]
    return found


def held_by(field: FieldInfo) -> Iterator[Model]:
    for annotation in (field.annotation, *field.metadata):
        yield from held(annotation)


def undescribed(models: typing.Iterable[Model]) -> list[str]:
    """Fields without a description that says more than their names; not the name by which a block is chosen."""
    return sorted(
        f"{model.__module__}.{model.__qualname__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not (name == "name" and typing.get_origin(field.annotation) is typing.Literal)
        and not says_more(name, field.description or "")
    )


def says_more(name: str, description: str) -> bool:
    known = {*name.lower().split("_"), "a", "an", "its", "of", "the", "their"}
    return any(word not in known and word.rstrip("s") not in known for word in re.findall(r"[a-z0-9]+", description.lower()))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    forget_new_blocks(monkeypatch)
    return CommandLine(monkeypatch, capsys)


def test_every_field_has_a_description() -> None:
    blocks = [spec for _, _, spec in registered()]
    found = parts([*WRITTEN, Trial, *blocks])
    assert len(found) > 100, "the walk has lost its way"
    assert undescribed(spec for spec in found if spec.model_fields and not is_base(spec, blocks)) == []


def is_base(spec: Model, blocks: list[Model]) -> bool:
    """Whether a spec stands for any block of a kind in a slot: the fields are those of the block."""
    return spec not in blocks and any(issubclass(block, spec) for block in blocks)


def test_a_field_without_a_description_is_found() -> None:
    class Inner(BaseModel):
        batch_size: int = Field(description="The size of a batch.")
        seed: int = 0

    class Outer(BaseModel):
        parts: dict[str, tuple[Inner, ...] | None] = Field(description="What is in it.")

    assert [path.rpartition(".")[2] for path in undescribed(parts([Outer]))] == ["batch_size", "seed"]


def test_the_committed_schema_describes_every_field_of_a_model() -> None:
    definitions = pairform.registry.read_json(SCHEMA)["$defs"]
    blocks = {f"{kind}.{name}": spec for kind, name, spec in registered()}
    models = {spec.__name__: spec for spec in parts([pairform.ModelSpec]) if not is_base(spec, list(blocks.values()))}
    for title, spec in {**models, **blocks}.items():
        properties = definitions[title]["properties"]
        for name, field in spec.model_fields.items():
            shown = properties[field.alias or name]
            if "const" not in shown:
                described = [shown, *shown.get("anyOf", ()), *shown.get("allOf", ())]
                assert field.description in [each.get("description") for each in described], f"{title}.{name}"


def test_the_page_of_blocks_has_every_option() -> None:
    pages = dict(re.findall(r"^### (\w+ \w+)\n(.*?)(?=^##|\Z)", BLOCKS.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL))
    for kind, name, spec in registered():
        for field in set(spec.model_fields) - {"name"}:
            assert f"\n| `{field}" in pages[f"{kind} {name}"], f"{kind} {name}: {field}"


@pytest.mark.parametrize("root", [StudySpec, Recipe, CorpusSpec])
def test_the_lists_of_fields_reach_every_part(root: Model) -> None:
    """Except documents of models, and conversions in a study, which are patches there and listed for recipes."""
    listed = {option.says for option in fields_of(root)}
    elsewhere = parts([pairform.ModelSpec, *([Converted] if root is StudySpec else [])])
    for part in parts([root]) - elsewhere:
        for name, field in part.model_fields.items():
            assert name == "name" or any((field.description or part.__name__) in says for says in listed), f"{part}: {name}"


def test_every_setting_of_generation_is_an_option(command: CommandLine) -> None:
    words = command("generate", "--help").out.split()
    for name in set(GenerationSpec.model_fields) - set(OF_A_CALL):
        assert f"--{name.replace('_', '-')}" in words, name


def test_the_fields_of_a_corpus_are_listed(command: CommandLine) -> None:
    found = {each["path"]: each for each in document(command("data", "fields", "--json"))}
    assert found["sources.messages"]["says"].startswith("Field or column with a conversation")
    assert found["held_out"]["default"] == "0.0"
