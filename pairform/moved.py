"""Modules that moved inside the package: their old names still import, with a `DeprecationWarning`."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

MOVED = {
    "assemblies.decoding": "assemblies.generation.decoding",
    "assemblies.initialisation.convert": "assemblies.initialisation.execute",
    "assemblies.stack": "assemblies.modeling.stack",
    "blocks.linear_cross_entropy": "blocks.heads.linear_cross_entropy",
    "experiments.batches": "training.data.batches",
    "experiments.files": "training.data.files",
    "experiments.measures": "training.costs.trials",
    "experiments.planning": "experiments.study.planning",
    "experiments.records": "experiments.results.records",
    "experiments.running": "experiments.execution.run",
    "experiments.study_spec": "experiments.study.spec",
    "experiments.summary": "experiments.results.summary",
    "experiments.tokens": "training.data.tokens",
    "experiments.training": "experiments.execution.trial",
}
"""The modules that scripts are known to import, by their old names."""


class MovedModules:
    """Finds and loads a moved module under its old name.

    It is not derived from the base classes in `importlib.abc`: to import those would double the time of `import pairform`.
    """

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, cast(Any, self)) if name.removeprefix("pairform.") in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        import warnings

        new = f"pairform.{MOVED[spec.name.removeprefix('pairform.')]}"
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: give the module back its own spec, which the import system has replaced."""
        module.__spec__ = self.own_spec


def install() -> None:
    """Let old names import."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
