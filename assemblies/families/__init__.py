"""Checkpoint families that pairform reads and writes. Each is a folder here and one entry in `ALL`."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families import (
    bart,
    bert,
    embedding_gemma2,
    encoder_decoder,
    eurobert,
    gemma,
    gemma1,
    gemma4,
    gpt2,
    granite,
    llama,
    mixtures,
    modernbert,
    olmo,
    phi3,
    smollm3,
    t5,
    t5gemma,
)
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.unread import unread
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import SpecError

ALL = (
    # of several that can express a spec the first is written: those with something of their own before Llama
    *bert.FAMILIES,
    *encoder_decoder.FAMILIES,
    *modernbert.FAMILIES,
    *eurobert.FAMILIES,
    *phi3.FAMILIES,
    *gpt2.FAMILIES,
    *mixtures.FAMILIES,
    *granite.FAMILIES,
    *smollm3.FAMILIES,
    *olmo.FAMILIES,
    *gemma1.FAMILIES,
    *llama.FAMILIES,
    *gemma4.FAMILIES,
    *gemma.FAMILIES,
    *t5.FAMILIES,
    *bart.FAMILIES,
    *embedding_gemma2.FAMILIES,
    *t5gemma.FAMILIES,
)
FAMILIES: Mapping[str, Family] = {family.model_type: family for family in ALL}
ADD = "docs/extend.md in pairform's repository says how to add a family."


def family_of_config(config: Mapping[str, Any]) -> Family:
    """The family that wrote a config.json; a `SpecError` for one that pairform does not read."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise SpecError(unread("model_type", model_type, FAMILIES, ADD))
    return FAMILIES[model_type]


def nearest_family(spec: ModelSpec) -> Family:
    """The family that stores specs of this kind. Whether it can express all of `spec` shows in its config.json."""
    return next(family for family in ALL if family.writes(spec))


def family_of_spec(spec: ModelSpec) -> tuple[Family, dict[str, Any]]:
    """The family that stores `spec`, and its config.json; a `SpecError` lists what none can express."""
    family = nearest_family(spec)
    return family, family.config(spec)
