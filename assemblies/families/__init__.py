"""Checkpoint families that pairform reads and writes."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.gemma2 import GEMMA2
from pairform.assemblies.families.t5gemma import T5GEMMA
from pairform.assemblies.families.table import Family
from pairform.assemblies.specs import ModelSpec
from pairform.registry import Problem, SpecError, shorten

FAMILIES: Mapping[str, Family] = {family.model_type: family for family in (GEMMA2, T5GEMMA)}


def family_of_config(config: Mapping[str, Any]) -> Family:
    """The family that wrote a config.json."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        found = "nothing" if model_type is None else shorten(model_type)
        raise SpecError(Problem("model_type", found, f"one of {', '.join(FAMILIES)}"))
    return FAMILIES[model_type]


def family_of_spec(spec: ModelSpec) -> tuple[Family, dict[str, Any]]:
    """The family that can store `spec`, and its config.json; a `SpecError` says why none can."""
    family = GEMMA2 if spec.assembly == "decoder_only" else T5GEMMA
    return family, family.config(spec)
