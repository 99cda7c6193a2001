"""Writes what a version of pairform writes: `python write.py FOLDER`, with that version on the import path.

It uses public functions and the command line only, so that every version from 0.1.0 on can run it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import pairform

SOURCE = torch.tensor([[3, 5, 7, 9, 11, 13, 4, 6], [8, 10, 12, 14, 16, 0, 0, 0]])
TARGET = torch.tensor([[2, 9, 8, 7], [2, 6, 5, 4]])

ATTENTION = {"heads": 2, "kv_heads": 1, "head_dim": 4, "scale": 0.3}
RETENTION = {"name": "retention", "position": {"name": "rope"}, "mask": {"window": None}}
WIDE = {"vocabulary": 24, "initializer_range": 0.4}
SMALL = {"layer": {"branches": {"self_attention": ATTENTION, "feed_forward": {"hidden": 16}}}}
SMALL_DECODER = {"layer": {"branches": SMALL["layer"]["branches"] | {"cross_attention": ATTENTION}}}
PAIR = WIDE | {
    "extends": "t5gemma-s-s",
    "encoder": {"width": 16, "depth": 2} | SMALL,
    "decoder": {"width": 16, "depth": 2} | SMALL_DECODER,
}
MODELS: dict[str, dict[str, Any]] = {
    "plain": PAIR,
    "patched": PAIR
    | {
        "encoder": {
            "width": 16,
            "depth": 2,
            "embedding": {"name": "factorised", "rank": 4},
            "layer": {
                "norm": {"name": "layernorm"},
                "placement": "pre",
                "branches": {
                    "self_attention": ATTENTION
                    | {"name": "differential_attention", "kv_heads": 2, "position": {"name": "alibi"}},
                    "feed_forward": {"name": "mixture", "experts": 3, "top_k": 2, "expert": {"name": "mlp", "hidden": 8}},
                },
            },
            "cycle": [{"branches": {"self_attention": {"mask": {"window": [2, 2]}}}}, {}],
            "overrides": [{"layers": [-1], "patch": {"branches": {"feed_forward": {"name": "gated", "hidden": 12}}}}],
        },
        "decoder": {
            "width": 16,
            "depth": 2,
            "layer": {
                "residual": {"name": "gated"},
                "branches": {
                    "self_attention": ATTENTION | {"sinks": True, "gate": "elementwise", "position": {"name": "t5_relative"}},
                    "cross_attention": ATTENTION | {"softcap": None},
                    "feed_forward": {"hidden": 16, "activation": "relu_squared"},
                },
            },
            "cycle": None,
            "overrides": [{"layers": [0], "patch": {"branches": {"self_attention": RETENTION}}}],
        },
    },
    "merged": WIDE
    | {
        "extends": "t5gemma2-270m-270m",
        "bridge": {"name": "linear"},
        "tie_embeddings": False,
        "head": {"tie": "decoder"},
        "encoder": {"width": 24, "depth": 2, "vision": None} | SMALL,
        "decoder": {"width": 16, "depth": 1} | SMALL,
    },
}
SOURCES = {"large": {"width": 24, "depth": 2}, "small": {"width": 16, "depth": 2}}
STUDY: dict[str, Any] = {
    "name": "copy",
    "base": "plain.json",
    "variants": {
        "separate": {},
        "mlp": {"decoder": {"layer": {"branches": {"feed_forward": {"name": "mlp"}}}}},
        "slow": {"training": {"optimizer": {"learning_rate": 0.0001}}},
    },
    "training": {"steps": 4, "batch": 8, "clip": 1.0, "schedule": {"name": "cosine", "warmup": 2}},
    "data": {"name": "copy", "symbols": 16, "length": [4, 8], "validation": 16},
    "seeds": [0, 1],
}
ADAPTED = {"extends": "gemma-2-2b", "vocabulary": 260, "decoder": {"width": 8, "depth": 1} | SMALL}
CORPUS = {"sources": [{"files": ["corpus.jsonl"]}], "tokenizer": "bytes", "held_out": 0.1}
RECIPE: dict[str, Any] = {
    "model": "adapted.json",
    "data": {"shards": "shards", "objective": {"name": "causal_lm", "window": 32}},
    "batch": {"tokens": 256, "micro": 2},
    "steps": 4,
    "optimizer": {"learning_rate": 0.003},
    "checkpoint": {"every": 2},
}


def write_models() -> None:
    for name, document in MODELS.items():
        write_json(f"{name}.json", document)
        pairform.save(pairform.build(pairform.load_spec(f"{name}.json"), seed=0), name)
    for seed, (name, stack) in enumerate(SOURCES.items()):
        source = WIDE | {"extends": "gemma-2-2b", "decoder": stack | SMALL}
        pairform.save(pairform.build(pairform.load_spec(source), seed=seed), name, format="transformers")
    pairform.convert(encoder="large", decoder="small", out="pair", seed=3)
    pairform.export("pair", "exported", format="transformers")
    for source in SOURCES:
        shutil.rmtree(source)


def write_run() -> None:
    """A run that was interrupted after its checkpoint of step 2; `run.jsonl` has the metrics of the whole."""
    texts = [f"{count} small cats follow {count * count} red birds over the wall" for count in range(40)]
    Path("corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for name, document in (("adapted", ADAPTED), ("corpus", CORPUS), ("recipe", RECIPE)):
        write_json(f"{name}.json", document)
    command("data", "prepare", "corpus.json", "--out", "shards")
    command("adapt", "run", "recipe.json", "--out", "run")
    shutil.copy("run/metrics.jsonl", "run.jsonl")
    shutil.rmtree("run/checkpoints/step-4")


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pairform", *words], check=True)


def written() -> dict[str, dict[str, Any]]:
    """What each folder computes: the logits of the last token, and the tokens that it generates."""
    found = {}
    for name in (*MODELS, "pair", "exported"):
        model = pairform.load(name).eval()
        with torch.no_grad():
            logits = model(SOURCE, decoder_input_ids=TARGET).logits[:, -1]
        tokens = model.generate(SOURCE[:1], max_new_tokens=6)
        found[name] = {"logits": logits.tolist(), "tokens": tokens.tolist()}
    return found


def write_json(name: str, document: Any) -> None:
    Path(name).write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    write_models()
    write_json("expected.json", written())
    write_json("study.json", STUDY)
    command("study", "run", "study.json", "--out", "study", "--jobs", "1")
    if hasattr(pairform, "adapt"):  # 0.1.0 had none
        write_run()


if __name__ == "__main__":
    main()
