"""pairform pairs any encoder with any decoder.

Architectures are JSON over registered blocks (`load_spec`, `patch`, `diff`, `build`), checkpoints are read and written in
transformers' layout and our own (`load`, `save`), and decoder-only checkpoints become encoder-decoders (`plan`, `convert`).
"""

import contextlib
import gc
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pairform.assemblies.analysis.diagrams import diagram as diagram
    from pairform.assemblies.analysis.inspection import inspect as inspect
    from pairform.assemblies.checkpoints.build import build as build
    from pairform.assemblies.checkpoints.export import export as export
    from pairform.assemblies.checkpoints.export import extract as extract
    from pairform.assemblies.checkpoints.reading.load_spec import diff as diff
    from pairform.assemblies.checkpoints.reading.load_spec import load_spec as load_spec
    from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
    from pairform.assemblies.checkpoints.save import load as load
    from pairform.assemblies.checkpoints.save import save as save
    from pairform.assemblies.checkpoints.verify import verify as verify
    from pairform.assemblies.initialisation.carry import carry as carry
    from pairform.assemblies.initialisation.convert import convert as convert
    from pairform.assemblies.initialisation.execute import execute as execute
    from pairform.assemblies.initialisation.options import Options as Options
    from pairform.assemblies.initialisation.plan import Plan as Plan
    from pairform.assemblies.initialisation.planning import plan as plan
    from pairform.assemblies.initialisation.resize import resize_vocabulary as resize_vocabulary
    from pairform.assemblies.modeling.model import Model as Model
    from pairform.assemblies.modeling.outputs import ModelOutput as ModelOutput
    from pairform.assemblies.preprocessing.images import picture_tokens as picture_tokens
    from pairform.assemblies.preprocessing.images import read_pictures as read_pictures
    from pairform.assemblies.specs.model import ModelSpec as ModelSpec
    from pairform.assemblies.specs.schema import schema as schema
    from pairform.blocks import blocks as blocks
    from pairform.blocks.cache import Cache as Cache
    from pairform.blocks.context import Context as Context
    from pairform.registry import BlockSpec as BlockSpec
    from pairform.registry import PairformError as PairformError
    from pairform.registry import Sizes as Sizes
    from pairform.registry import presets as presets
    from pairform.registry import register as register

    patch = patch_spec

__version__ = "0.1.0"

_HOMES = {
    "build": "assemblies.checkpoints.build",
    "export": "assemblies.checkpoints.export",
    "extract": "assemblies.checkpoints.export",
    "load": "assemblies.checkpoints.save",
    "save": "assemblies.checkpoints.save",
    "verify": "assemblies.checkpoints.verify",
    "carry": "assemblies.initialisation.carry",
    "convert": "assemblies.initialisation.convert",
    "execute": "assemblies.initialisation.execute",
    "Options": "assemblies.initialisation.options",
    "Plan": "assemblies.initialisation.plan",
    "plan": "assemblies.initialisation.planning",
    "inspect": "assemblies.analysis.inspection",
    "diagram": "assemblies.analysis.diagrams",
    "diff": "assemblies.checkpoints.reading.load_spec",
    "load_spec": "assemblies.checkpoints.reading.load_spec",
    "patch": "assemblies.checkpoints.reading.load_spec:patch_spec",
    "Model": "assemblies.modeling.model",
    "ModelOutput": "assemblies.modeling.outputs",
    "picture_tokens": "assemblies.preprocessing.images",
    "read_pictures": "assemblies.preprocessing.images",
    "resize_vocabulary": "assemblies.initialisation.resize",
    "schema": "assemblies.specs.schema",
    "ModelSpec": "assemblies.specs.model",
    "Cache": "blocks.cache",
    "Context": "blocks.context",
    "BlockSpec": "registry",
    "PairformError": "registry",
    "Sizes": "registry",
    "presets": "registry",
    "register": "registry",
}
"""Where each public name lives; it is imported when it is first used, so that `import pairform` needs no torch."""

__all__ = ["__version__", *sorted([*_HOMES, "blocks"])]


def __getattr__(name: str) -> Any:
    if name == "blocks":
        return importlib.import_module("pairform.blocks")
    if name not in _HOMES:
        raise AttributeError(f"module 'pairform' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    with _uncollected():
        value = getattr(importlib.import_module(f"pairform.{module}"), attribute or name)
    globals()[name] = value
    return value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without garbage collection: one pass over all that torch holds takes a third of our own import's time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def __dir__() -> list[str]:
    return __all__
