"""Imported once by the process that `tests.forked` forks from. Nothing is computed here, so that no thread runs at a fork."""

import importlib

for module in (
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "pairform.cli.main",
    "pairform.training.adaptation.run",
    "pairform.training.checkpoints",
    "pairform.training.parallel",
    "pairform.assemblies.initialisation.execute",
):
    importlib.import_module(module)
