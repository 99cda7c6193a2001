"""The JSON Schema of studies, with which an editor completes and checks them."""

from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.scaling.scaled_model import ScaleSpec
from pairform.assemblies.specs.schema import EXTENDING, PATCH, Schema, documents, ref, whole_or_extending
from pairform.experiments.study.ladder import SCALE
from pairform.experiments.study.spec import StudySpec
from pairform.training.adaptation.recipe_parts import ConversionSpec, Converted
from pairform.training.settings import TrainingSpec

BASE, VARIANT = "Base", "Variant"
TEXT: Schema = {"type": "string"}


def study_schema() -> Schema:
    """The JSON Schema of studies, as a dict, with all blocks that are registered now."""
    found = documents(
        (StudySpec, Converted, ScaleSpec),
        "pairform study",
        {
            (StudySpec, "base"): {"anyOf": [TEXT, ref(Converted.__name__), whole_or_extending(BASE)]},
            (StudySpec, "weights"): {"anyOf": [TEXT, ref(Converted.__name__)]},
            (StudySpec, "variants"): {"type": "object", "minProperties": 1, "additionalProperties": ref(VARIANT)},
            (StudySpec, "ladder"): {"type": "object", "additionalProperties": ref(VARIANT)},
            (ConversionSpec, "patch"): ref(ModelSpec.__name__ + EXTENDING),
        },
    )
    definitions = found["$defs"]
    own = {
        "training": {"description": "Merge patch on the study's `training`.", **ref(TrainingSpec.__name__ + PATCH)},
        "weights": {
            "description": "Where this variant's weights come from, or a merge patch on the study's `weights`.",
            "anyOf": [TEXT, ref(Converted.__name__ + PATCH)],
        },
    }
    scale = {"description": "A new size of the model, whose proportions are kept.", **ref(ScaleSpec.__name__)}
    for name, suffix in ((BASE, ""), (BASE, EXTENDING), (VARIANT, EXTENDING)):
        model = definitions[ModelSpec.__name__ + suffix]
        added = {SCALE: scale} | (own if name == VARIANT else {})
        key = name + (suffix if name == BASE else "")
        definitions[key] = model | {"title": name, "properties": model["properties"] | added}
    return found
