"""What the process that trials are forked from does once: it imports and prepares what each would, and computes nothing.

What torch imports with its first optimiser and its first count of FLOPs, and the validators of specs, take longer than a small
trial.
"""

import importlib

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.experiments.results.records import Trial
from pairform.experiments.study.spec import StudySpec

for module in ("pairform.experiments.execution.worker", "torch._dynamo", "torch.utils.flop_counter"):
    importlib.import_module(module)
load_spec("t5gemma-s-s")
for spec in (StudySpec, Trial):
    spec.model_rebuild()
