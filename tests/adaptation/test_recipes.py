"""Recipes: presets, what they extend, and what is told about them."""

from typing import Any

import pytest

from pairform.registry import SpecError
from pairform.training.adaptation.recipe import Recipe, read_recipe, recipe_presets

OWN: dict[str, Any] = {"model": "pair", "data": {"shards": "shards"}, "batch": {"tokens": 1 << 20, "micro": 4}, "steps": 5000}


@pytest.mark.parametrize("name", recipe_presets())
def test_a_preset_needs_a_model_data_and_steps(name: str) -> None:
    recipe, _ = read_recipe({"extends": name, **OWN})
    assert recipe.batch.tokens == 1 << 20
    assert recipe.data.objective.name == {"p1-prefixlm": "prefix_lm", "finetune": "pairs"}.get(name, "ul2")
    assert Recipe.read(recipe.document()) == recipe
    with pytest.raises(SpecError, match="model"):
        read_recipe({"extends": name})


def test_the_papers_values_are_kept() -> None:
    assert recipe_presets() == ["finetune", "p1-prefixlm", "p1-ul2", "p2-ul2"]
    recipe, _ = read_recipe({"extends": "p2-ul2", **OWN, "batch": {"micro": 1}})
    assert (recipe.batch.tokens, recipe.schedule.warmup, recipe.clip) == (4_194_304, 100, 1.0)
    assert recipe.average is not None
    assert (recipe.average.checkpoints, recipe.checkpoint.keep) == (5, 5)


def test_a_name_that_is_near_is_suggested() -> None:
    with pytest.raises(SpecError, match="Did you mean 'p2-ul2'"):
        read_recipe({"extends": "p2-ul", **OWN})
