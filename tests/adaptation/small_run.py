"""A run that takes seconds: a model of 32 channels, and a corpus of generated sentences."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from pairform.training.adaptation.run import adapt
from pairform.training.data.corpus.prepare import prepare
from pairform.training.loop import Loop

WORDS = ["the", "small", "cat", "follows", "a", "red", "bird", "over", "every", "wall", "and", "under", "this", "old", "bridge"]
ATTENTION = {"heads": 2, "kv_heads": 1, "head_dim": 16}
SPEC: dict[str, Any] = {
    "extends": "t5gemma-s-s",
    "vocabulary": 300,
    **{
        part: {
            "width": 32,
            "depth": 1,
            "cycle": [{}],
            "layer": {"branches": {"self_attention": ATTENTION, "feed_forward": {"hidden": 64}}},
        }
        for part in ("encoder", "decoder")
    },
}
SPEC["decoder"]["layer"]["branches"]["cross_attention"] = ATTENTION
SPEED = ("seconds", "tokens_per_second", "flops_per_second", "mfu")
RECIPE: dict[str, Any] = {
    "model": "spec.json",
    "data": {"shards": "shards", "objective": {"name": "prefix_lm", "source": 16, "target": 16}},
    "batch": {"tokens": 256, "micro": 2},
    "steps": 6,
    "seed": 1,
    "optimizer": {"learning_rate": 0.003},
    "checkpoint": {"every": 2},
}

EVALUATION = {"evaluation": {"every": 2, "rows": 4, "generate": {"prompts": 1, "max_new_tokens": 3}}}


def write_run(folder: Path, patch: dict[str, Any] | None = None) -> Path:
    """The files of a run: the model's spec, a prepared corpus, and the recipe, whose path is returned."""
    draws = random.Random(0)
    documents = [{"text": " ".join(draws.choices(WORDS, k=draws.randint(3, 60)))} for _ in range(80)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    corpus = {"sources": [{"files": ["corpus.jsonl"]}], "tokenizer": "bytes", "held_out": 0.1}
    (folder / "corpus.json").write_text(json.dumps(corpus))
    prepare(folder / "corpus.json", folder / "shards")
    (folder / "spec.json").write_text(json.dumps(SPEC))
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(RECIPE | {"model": str(folder / "spec.json")} | (patch or {})))
    return recipe


def lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics without seconds and speed, which differ from run to run."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SPEED} for line in found]


def trained(folder: Path, patch: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The lines of a run in `folder/run`."""
    return lines(adapt(write_run(folder, patch), folder / "run"))


def terminate_in(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM at the beginning of a step, counted from 0."""
    make = Loop.step

    def signalled(self: Loop, number: int, batch: Any) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, number, batch)

    monkeypatch.setattr(Loop, "step", signalled)
