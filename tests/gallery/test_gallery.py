"""The gallery: each spec is short, builds, runs and is drawn, and the pages say of it what is so."""

import json
import re
from pathlib import Path

import pytest
import torch

import pairform
from tests.gallery import PAGES, SPECS, diagrams

LINES, COLUMNS = 12, 128
TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def test_there_are_twelve_specs_and_a_page_for_each() -> None:
    assert len(SPECS) == 12
    assert {file.stem for file in SPECS} | {"README"} == {page.stem for page in PAGES.glob("*.md")}


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_a_spec_is_short_and_names_the_schema(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= LINES
    assert all(len(line) <= COLUMNS for line in text.splitlines())
    assert (file.parent / json.loads(text)["$schema"]).resolve().is_file()


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_a_spec_builds_runs_and_is_drawn(file: Path) -> None:
    """A small version of it: logits and gradients are finite, and a model with a decoder generates."""
    model = pairform.build(pairform.scale(file, width=64, depth=4), seed=0)
    output = model(TOKENS, labels=TOKENS)
    output.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert output.logits.shape == (2, 4, model.spec.vocabulary_of(list(model.spec.stacks)[-1]))
    assert all(bool(values.isfinite().all()) for values in (output.logits, *gradients))
    assert len(gradients) == sum(parameter.requires_grad for parameter in model.parameters())
    if model.decoder is not None:
        prompt = 1 if model.encoder is not None else TOKENS.shape[1]
        assert model.generate(TOKENS, max_new_tokens=3, eos_token_id=()).shape == (2, prompt + 3)
    assert pairform.diagram(file).startswith("<svg")


def test_the_pictures_are_what_is_drawn_now() -> None:
    """`python -m tests.gallery` makes them anew."""
    stale = [path.name for path, text in diagrams() if not path.is_file() or path.read_text("utf-8") != text]
    assert stale == []


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_the_overview_says_how_large_a_spec_is(file: Path) -> None:
    """Its row links to its page and shows its picture."""
    total = pairform.inspect(file, source_length=1, target_length=1).parameters["total"]
    row = next(line for line in (PAGES / "README.md").read_text("utf-8").splitlines() if f"]({file.stem}.md) |" in line)
    assert f"small/{file.stem}.svg" in row
    assert re.search(rf"\| {total:,} \|", row)


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_a_page_shows_the_spec_its_diagram_and_its_parameters(file: Path) -> None:
    page = (PAGES / f"{file.stem}.md").read_text("utf-8")
    assert f"```json file={file.name}\n{file.read_text('utf-8')}```" in page
    assert f"](../figures/gallery/{file.stem}.svg)" in page
    assert f"$ pairform inspect {file.name}" in page


def test_the_gallerys_t5gemma_is_the_published_pair() -> None:
    file = next(file for file in SPECS if file.stem == "t5gemma")
    assert pairform.diff(file, "t5gemma-9b-2b") == {}
