"""Measures of a study on models that are built here, in this process."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pairform
from pairform.experiments.evaluation.gathering import measure
from pairform.experiments.study.contents import StudyContents, gather
from pairform.experiments.study.planning import plan_trials, read_study
from pairform.experiments.study.spec import StudySpec
from tests.studies.small_study import write_study

WORDS = ["ab", "ba", "aab", "bb", "a", "abab"]
BYTES = 300
"""A vocabulary with an id for each byte."""


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)))


def text_study(folder: Path, measures: list[dict[str, Any]], change: dict[str, Any] | None = None) -> Path:
    """The file of a study of pairs of texts that takes no step. change: of its fields, whole."""
    for name in ("train", "held"):
        write_lines(folder / f"{name}.jsonl", [{"source": word, "target": word[::-1]} for word in WORDS])
    data = {"name": "pairs", "train": ["train.jsonl"], "held_out": ["held.jsonl"], "symbols": None, "length": None}
    fresh = {"base": {"vocabulary": BYTES, "initializer_range": 1.0}, "training": {"steps": 0}, "seeds": [0]}
    file = write_study(folder, {"data": data | {"validation": 6}, "measures": measures} | fresh)
    file.write_text(json.dumps(json.loads(file.read_text()) | (change or {})))
    return file


def opened(file: Path) -> tuple[StudySpec, StudyContents]:
    study = read_study(file)
    return study, gather(study, file.parent)


def measured(file: Path, model: pairform.Model | None = None) -> tuple[pairform.Model, dict[str, float | None]]:
    """What is measured on a model, by default the first trial's, newly initialised."""
    study, contents = opened(file)
    trial = plan_trials(study, file.parent, contents)[0]
    made = pairform.build(dict(trial.spec), seed=0) if model is None else model
    return made, measure(contents.measures, made.spec, trial.training)(made)
