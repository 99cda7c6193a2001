"""Writes what a version of pairform writes: `python write.py FOLDER`, with that version on the import path.

It uses public functions and the command line only, so that every version from 0.1.0 on can run it.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import torch

import pairform

SOURCE = torch.tensor([[3, 5, 7, 9, 11, 13, 4, 6], [8, 10, 12, 14, 16, 0, 0, 0]])
TARGET = torch.tensor([[2, 9, 8, 7], [2, 6, 5, 4]])

Document: TypeAlias = dict[str, Any]

ATTENTION: Document = {"heads": 2, "kv_heads": 1, "head_dim": 4, "scale": 0.3}
RETENTION: Document = {"name": "retention", "position": {"name": "rope"}, "mask": {"window": None}}
WIDE: Document = {"vocabulary": 24, "initializer_range": 0.4}
SMALL: Document = {"layer": {"branches": {"self_attention": ATTENTION, "feed_forward": {"hidden": 16}}}}
SMALL_DECODER: Document = {"layer": {"branches": SMALL["layer"]["branches"] | {"cross_attention": ATTENTION}}}
PAIR: Document = WIDE | {
    "extends": "t5gemma-s-s",
    "encoder": {"width": 16, "depth": 2} | SMALL,
    "decoder": {"width": 16, "depth": 2} | SMALL_DECODER,
}
MODELS: dict[str, Document] = {
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
SOURCES: dict[str, Document] = {"large": {"width": 24, "depth": 2}, "small": {"width": 16, "depth": 2}}
STUDY: Document = {
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
ADAPTED: Document = {"extends": "gemma-2-2b", "vocabulary": 260, "decoder": {"width": 8, "depth": 1} | SMALL}
CORPUS: Document = {"sources": [{"files": ["corpus.jsonl"]}], "tokenizer": "bytes", "held_out": 0.1}
RECIPE: Document = {
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
    for name in SOURCES:
        shutil.rmtree(name)


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


def written() -> dict[str, Document]:
    """What each folder computes: the logits of the last token, and the tokens that it generates."""
    found = {}
    for name in (*MODELS, "pair", "exported"):
        model = pairform.load(name).eval()
        with torch.no_grad():
            logits = model(SOURCE, decoder_input_ids=TARGET).logits[:, -1]
        tokens = model.generate(SOURCE[:1], max_new_tokens=6)
        found[name] = {"logits": [[round(each, 6) for each in row] for row in logits.tolist()], "tokens": tokens.tolist()}
    return found


def interface() -> Document:
    """What users call by name: functions with their arguments, presets, blocks with their fields, commands with options."""
    functions = {name: getattr(pairform, name) for name in pairform.__all__}
    return {
        "names": {name: arguments(value) for name, value in functions.items() if callable(value)},
        "presets": pairform.presets(),
        "blocks": {
            f"{kind} {name}": sorted(block.Spec.model_fields)
            for kind, registry in pairform.blocks().items()
            for name, block in registry.items()
        },
        "commands": {" ".join(command): options(help_of(*command)) for command in commands()},
    }


def arguments(function: Any) -> list[str]:
    """Of a class those of its documented constructor; of pydantic's models the fields."""
    found = getattr(function, "model_fields", None) or inspect.signature(function).parameters
    return list(found)


def commands(*group: str) -> list[tuple[str, ...]]:
    listed = help_of(*group).partition("Commands:")[2]
    found: list[tuple[str, ...]] = [(*group, name) for name in re.findall(r"^  ([a-z]+)\b", listed, re.MULTILINE)]
    return [each for name in found for each in (commands(*name) or [name])]


def options(text: str) -> list[str]:
    """The options in a help text."""
    return sorted(set(re.findall(r"(?<![\w`'-])--[a-z][a-z-]*", text.partition("Examples:")[0])))


def help_of(*command: str) -> str:
    words = [sys.executable, "-m", "pairform", *command, "--help"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def write_json(name: str, document: Any, indent: int | None = 1) -> None:
    Path(name).write_text(json.dumps(document, indent=indent) + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    write_models()
    write_json("expected.json", written(), None)
    write_json("interface.json", interface(), None)
    write_json("study.json", STUDY)
    command("study", "run", "study.json", "--out", "study", "--jobs", "1")
    if hasattr(pairform, "adapt"):  # 0.1.0 had none
        write_run()


if __name__ == "__main__":
    main()
