"""The JSON Schema of recipes, with which an editor completes and checks them."""

from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.schema import EXTENDING, PATCH, Schema, documents, ref
from pairform.training.adaptation.recipe import PRESETS, Recipe
from pairform.training.adaptation.recipe_parts import ConversionSpec


def recipe_schema() -> Schema:
    """The JSON Schema of recipes, as a dict: whole ones, and patches on the recipe that `extends` names."""
    found = documents((Recipe,), "pairform recipe", {(ConversionSpec, "patch"): ref(ModelSpec.__name__ + EXTENDING)})
    definitions, name = found["$defs"], Recipe.__name__
    extends = {"enum": sorted(file.stem for file in PRESETS.glob("*.json")), "description": "Recipe that this one patches."}
    patch = definitions[name + PATCH]
    definitions[name + EXTENDING] = patch | {"properties": patch["properties"] | {"extends": extends}}
    choice = {"if": {"required": ["extends"]}, "then": ref(name + EXTENDING), "else": ref(name)}
    return {key: value for key, value in found.items() if key != "$ref"} | choice
