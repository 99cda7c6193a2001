"""Gemma 4 in transformers' files. Of a folder with pictures and sound the language model alone is read.

A text model is written as `gemma4_text`. What it reads besides text, `use_bidirectional_attention: "vision"`, has no effect
on text.
"""

import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from pairform.assemblies.families.config import HeadConfig, checked, inside, part_config
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma4.config import Gemma4Config, Gemma4UnifiedConfig
from pairform.assemblies.families.gemma4.names import TOWERS, names, names_beside_towers, rows
from pairform.assemblies.families.gemma4.stack import check_is_causal, stack_config, stack_document
from pairform.assemblies.families.heads import architectures, decoder_only, decoder_only_config
from pairform.assemblies.specs.model import ModelSpec

TEXT = {
    f"gemma4{kind}_text": {"lm": f"{classes}ForCausalLM", "none": f"{classes}TextModel"}
    for kind, classes in {"": "Gemma4", "_unified": "Gemma4Unified"}.items()
}
WHOLE = {
    f"gemma4{kind}": architectures(classes, "ForConditionalGeneration")
    for kind, classes in {"": "Gemma4", "_unified": "Gemma4Unified"}.items()
}
"""The classes of text models, and of models that read pictures and sound too, for our heads."""


def kind_of(model_type: str) -> type[Gemma4Config]:
    return Gemma4UnifiedConfig if "unified" in model_type else Gemma4Config


def to_document(model_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    fields = checked(kind_of(model_type), config)
    return document_of(fields, TEXT[model_type])


def beside_towers(model_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the language model in a folder with towers."""
    top = checked(HeadConfig, {**config, "use_bidirectional_attention": None})
    text = part_config(kind_of(model_type), config, "text_config")
    check_is_causal(config.get("is_causal"), causal=text["use_bidirectional_attention"] != "all")
    given = {field: top[field] for field in ("architectures", "tie_word_embeddings", "id2label", "num_labels")}
    with inside("text_config"):
        return document_of(text | given, WHOLE[model_type])


def document_of(config: Mapping[str, Any], classes: Mapping[str, str]) -> dict[str, Any]:
    return decoder_only(config, classes, stack_document(config), softcap=config["final_logit_softcapping"])


def to_config(spec: ModelSpec) -> dict[str, Any]:
    head = decoder_only_config(spec, TEXT["gemma4_text"], softcap="final_logit_softcapping")
    return stack_config(spec.last, spec.vocabulary) | head


def writes(spec: ModelSpec) -> bool:
    """Decoders whose values are normalised, or whose layers share keys, have inputs of their own or a scale."""
    layers = spec.last.layers
    own = any(layer.output_scale or layer.self_attention.value_norm or layer.self_attention.share_keys for layer in layers)
    return spec.assembly == "decoder_only" and (own or spec.last.layer_input is not None)


def name_towers(document: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Warn of the tensors that are not read, by prefix. There is nothing to patch."""
    counts = Counter(tower for name in names for tower in TOWERS if name.startswith(tower))
    if counts:
        found = ", ".join(f"{count} of {tower.removesuffix('.')}" for tower, count in sorted(counts.items()))
        warnings.warn(f"tensors for pictures and sound are not read, only the language model is: {found}", stacklevel=2)
    return {}


ANY = NameTable(rows("model.", mixture=False))
ANY_BESIDE_TOWERS = NameTable(rows("model.language_model.", mixture=False), unread=TOWERS)
FAMILIES = (
    *(
        Family(
            model_type,
            ANY,
            partial(to_document, model_type),
            to_config,
            writes if model_type == "gemma4_text" else lambda spec: False,
            written=names,
            by_spec=True,
        )
        for model_type in TEXT
    ),
    *(
        Family(
            model_type,
            ANY_BESIDE_TOWERS,
            partial(beside_towers, model_type),
            to_config,
            lambda spec: False,
            written=names_beside_towers,
            by_spec=True,
            by_names=name_towers,
        )
        for model_type in WHOLE
    ),
)
