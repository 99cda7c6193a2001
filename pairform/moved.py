"""Modules that moved inside the package: their old names still import, with a `DeprecationWarning`."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "assemblies.decoding": "assemblies.generation.decoding",
    "assemblies.stack": "assemblies.modeling.stack",
    "blocks.linear_cross_entropy": "blocks.heads.linear_cross_entropy",
    "experiments.batches": "training.data.batches",
    "experiments.files": "training.data.files",
    "experiments.measures": "training.costs",
    "experiments.planning": "experiments.study.planning",
    "experiments.records": "experiments.results.records",
    "experiments.running": "experiments.execution.run",
    "experiments.study_spec": "experiments.study.spec",
    "experiments.summary": "experiments.results.summary",
    "experiments.tokens": "training.data.tokens",
    "experiments.training": "training.loop",
}
"""The modules that scripts are known to import, by their old names."""


class MovedModules(MetaPathFinder, Loader):
    """Finds a moved module under its old name."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.removeprefix("pairform.") in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = f"pairform.{MOVED[spec.name.removeprefix('pairform.')]}"
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def install() -> None:
    """Let old names import."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
