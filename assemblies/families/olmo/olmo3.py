"""OLMo 3 (Ai2, 2025) in transformers' files: OLMo 2 with windows in three of four layers, and positions by kind of layer."""

from collections.abc import Mapping
from typing import Any

from pairform.assemblies.families.config import checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.gemma.gemma3_stack import GLOBAL, LOCAL, RopeByType, global_layer, position
from pairform.assemblies.families.heads import decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.olmo.olmo2 import HEADLESS, NAMES, Olmo2Config, olmo, reordered
from pairform.assemblies.families.rope import rope_config
from pairform.assemblies.specs.layer_patches import with_layer_patches
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import PositiveInt

THETAS = {LOCAL: 500_000.0, GLOBAL: 500_000.0}
OLDER = {GLOBAL: "rope_theta"}
"""In files without `rope_parameters` transformers uses this field for global layers alone."""


class Olmo3Config(Olmo2Config):
    rope_parameters: RopeByType | None = None
    sliding_window: PositiveInt | None = 4096
    layer_types: list[str] | None = None


KIND = llama.Kind("olmo3", "Olmo3", Olmo3Config, windows="some", qk_norm=True, without=HEADLESS)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(Olmo3Config, config)
    depth = config["num_hidden_layers"]
    types = config["layer_types"] or [LOCAL if (layer + 1) % 4 else GLOBAL for layer in range(depth)]
    known = config | {"layer_types": types, "use_sliding_window": True, "rope_parameters": None, "rope_scaling": None}
    stack = reordered(llama.stack_document(KIND, known))
    of = {kind: {"name": "rope", **position(config, kind, THETAS, OLDER)} for kind in (LOCAL, GLOBAL)}
    stack["layer"]["branches"]["self_attention"]["position"] = of[GLOBAL]
    turned = global_layer(of[GLOBAL], of[LOCAL])["branches"]["self_attention"]["position"]
    patch = {"branches": {"self_attention": {"position": turned}}} if of[LOCAL] != of[GLOBAL] else {}
    stack = with_layer_patches(stack, [patch if kind == LOCAL else {} for kind in types])
    return decoder_only(config, KIND.architectures, stack, softcap=None)


def to_config(spec: ModelSpec) -> dict[str, Any]:
    config = llama.to_config(KIND, spec)
    attentions = [gemma.branch(layer, "self_attention") for layer in spec.last.layers]
    kinds = dict(reversed(list(zip(config["layer_types"], attentions, strict=True))))  # the first of each kind stays
    for field in ("use_sliding_window", "max_window_layers"):
        config.pop(field)
    found = {kind: kinds.get(kind, {}).get("position") or {"theta": THETAS[kind]} for kind in (GLOBAL, LOCAL)}
    return config | {"rope_parameters": {kind: rope_config(own) for kind, own in found.items()}}


def writes(spec: ModelSpec) -> bool:
    return olmo(spec)


OLMO3 = Family("olmo3", NAMES, to_document, to_config, writes)
