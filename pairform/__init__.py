"""pairform pairs any encoder with any decoder.

Architectures are JSON over registered blocks (`load_spec`, `patch`, `diff`, `build`), checkpoints are read and written in
transformers' layout and our own (`load`, `save`), and decoder-only checkpoints become encoder-decoders (`plan`, `convert`).
"""

import gc
import importlib
from typing import TYPE_CHECKING, Any

from pairform.moved import install

if TYPE_CHECKING:
    from pairform.assemblies.analysis.diagrams import diagram as diagram
    from pairform.assemblies.analysis.inspection import inspect as inspect
    from pairform.assemblies.analysis.parallel_plan import parallel_plan as parallel_plan
    from pairform.assemblies.checkpoints.build import build as build
    from pairform.assemblies.checkpoints.extract import extract as extract
    from pairform.assemblies.checkpoints.reading.load_spec import diff as diff
    from pairform.assemblies.checkpoints.reading.load_spec import load_spec as load_spec
    from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
    from pairform.assemblies.checkpoints.reading.load_spec import scale as scale
    from pairform.assemblies.checkpoints.save import load as load
    from pairform.assemblies.checkpoints.save import save as save
    from pairform.assemblies.checkpoints.verify import verify as verify
    from pairform.assemblies.eject import eject as eject
    from pairform.assemblies.initialisation.carry import carry as carry
    from pairform.assemblies.initialisation.execute import convert as convert
    from pairform.assemblies.initialisation.execute import execute as execute
    from pairform.assemblies.initialisation.options import Options as Options
    from pairform.assemblies.initialisation.plan import Plan as Plan
    from pairform.assemblies.initialisation.planning import plan as plan
    from pairform.assemblies.initialisation.resize import resize_vocabulary as resize_vocabulary
    from pairform.assemblies.modeling.model import Model as Model
    from pairform.assemblies.modeling.outputs import GenerationOutput as GenerationOutput
    from pairform.assemblies.modeling.outputs import ModelOutput as ModelOutput
    from pairform.assemblies.modeling.sharding import shard as shard
    from pairform.assemblies.preprocessing.images import picture_tokens as picture_tokens
    from pairform.assemblies.preprocessing.images import read_pictures as read_pictures
    from pairform.assemblies.specs.generation import GenerationSpec as GenerationSpec
    from pairform.assemblies.specs.model import ModelSpec as ModelSpec
    from pairform.assemblies.specs.schema import schema as schema
    from pairform.blocks import blocks as blocks
    from pairform.blocks.cache import Cache as Cache
    from pairform.blocks.context import Context as Context
    from pairform.interop.export import export as export
    from pairform.interop.hub.card import model_card as model_card
    from pairform.interop.hub.push import push as push
    from pairform.registry import BlockSpec as BlockSpec
    from pairform.registry import PairformError as PairformError
    from pairform.registry import Sizes as Sizes
    from pairform.registry import presets as presets
    from pairform.registry import register as register
    from pairform.training.adaptation.run import adapt as adapt

    patch = patch_spec

install()

__version__ = "0.2.0"

_MODULES = {
    "assemblies.checkpoints.build": ("build",),
    "assemblies.checkpoints.extract": ("extract",),
    "assemblies.checkpoints.save": ("load", "save"),
    "assemblies.checkpoints.verify": ("verify",),
    "assemblies.eject": ("eject",),
    "assemblies.initialisation.carry": ("carry",),
    "assemblies.initialisation.execute": ("convert", "execute"),
    "assemblies.initialisation.options": ("Options",),
    "assemblies.initialisation.plan": ("Plan",),
    "assemblies.initialisation.planning": ("plan",),
    "assemblies.analysis.inspection": ("inspect",),
    "assemblies.analysis.parallel_plan": ("parallel_plan",),
    "assemblies.analysis.diagrams": ("diagram",),
    "assemblies.checkpoints.reading.load_spec": ("diff", "load_spec", "patch", "scale"),
    "assemblies.modeling.model": ("Model",),
    "assemblies.modeling.outputs": ("GenerationOutput", "ModelOutput"),
    "assemblies.modeling.sharding": ("shard",),
    "assemblies.preprocessing.images": ("picture_tokens", "read_pictures"),
    "assemblies.initialisation.resize": ("resize_vocabulary",),
    "assemblies.specs.schema": ("schema",),
    "assemblies.specs.generation": ("GenerationSpec",),
    "assemblies.specs.model": ("ModelSpec",),
    "blocks.cache": ("Cache",),
    "blocks.context": ("Context",),
    "interop.export": ("export",),
    "interop.hub.card": ("model_card",),
    "interop.hub.push": ("push",),
    "training.adaptation.run": ("adapt",),
    "registry": ("BlockSpec", "PairformError", "Sizes", "presets", "register"),
}
"""Public names by the module that defines them. It is imported at first use, so that `import pairform` needs no torch."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted([*_HOMES, "blocks"])]


def __getattr__(name: str) -> Any:
    if name == "blocks":
        return importlib.import_module("pairform.blocks")
    if name not in _HOMES:
        raise AttributeError(f"module 'pairform' has no attribute {name!r}")
    # Garbage collection during the import takes 0.2 of the 0.65 s of CPU time that our modules take after torch's:
    # each collection scans all of torch's objects, and nothing becomes garbage.
    enabled = gc.isenabled()
    gc.disable()
    try:
        value = getattr(importlib.import_module(f"pairform.{_HOMES[name]}"), "patch_spec" if name == "patch" else name)
    finally:
        if enabled:
            gc.enable()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
