"""Imported once by the process that trials are forked from: modules and validators that trials need.

Torch's imports for its first optimiser and first FLOP count, and building the specs' validators, take longer than a small
trial. Nothing is computed here, so that no thread is running when a trial is forked.
"""

import importlib

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.blocks.attention.kernels.dispatch import prepare
from pairform.experiments.results.records import Trial
from pairform.experiments.study.spec import StudySpec

for module in ("pairform.experiments.execution.worker", "torch._dynamo", "torch.utils.flop_counter"):
    importlib.import_module(module)
prepare("auto")
load_spec("t5gemma-s-s")
for spec in (StudySpec, Trial):
    spec.model_rebuild()
