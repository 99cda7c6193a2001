"""The card's paragraphs on how a model was made, from its provenance. Fields that have another form are left out."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from pairform.assemblies.checkpoints.writing.bases import Base
from pairform.interop.hub.escaping import code, table
from pairform.registry import printable

KINDS = {"copy": "copied", "fresh": "newly drawn"}
"""What a plan's operations do; all others derive a tensor from others."""
RECIPE_LENGTH = 10_000
"""The longest recipe that a card shows, in characters."""
METRICS = ("loss", "tokens", "seconds")


def section(provenance: Mapping[str, Any], bases: Sequence[Base]) -> list[str]:
    said = [based_on(bases)] if bases else []
    match provenance.get("origin"):
        case "convert":
            said += ["The weights were initialised by `pairform convert`.", *initialised(provenance)]
        case "carry":
            said += ["The architecture was changed by `pairform carry`; weights that fit were kept.", *initialised(provenance)]
        case "extract":
            said.append(f"It is the {code(provenance.get('part'))} of another model, extracted by `pairform extract`.")
        case "export":
            said.append("Its tensors were written in another layout by `pairform export`, unchanged.")
        case "adapt":
            said += trained(provenance)
        case "save":
            said.append("It was saved by `pairform.save`.")
    return said or ["Its files do not say how it was made."]


def based_on(bases: Sequence[Base]) -> str:
    rows = [
        (
            f"[{base.name}](https://huggingface.co/{base.name}/tree/{base.revision})" if base.revision else code(base.name),
            code(base.model_type) if base.model_type else "",
            code(base.license) if base.license else "not stated",
        )
        for base in bases
    ]
    return table(("made of", "model type", "licence"), rows)


def initialised(provenance: Mapping[str, Any]) -> list[str]:
    """The tensors of each stack by how they were made."""
    tensors: Counter[tuple[str, str]] = Counter()
    parameters: Counter[tuple[str, str]] = Counter()
    rows = provenance.get("targets")
    for row in rows if isinstance(rows, list) else ():
        match row:
            case {"target": str(name), "shape": [*shape], "operation": {"name": str(operation)}}:
                if all(isinstance(size, int) for size in shape):
                    key = name.partition(".")[0], KINDS.get(operation, "derived from others")
                    tensors[key] += 1
                    parameters[key] += prod(shape)
    if not tensors:
        return []
    cells = [(code(key[0]), key[1], f"{count:,}", f"{parameters[key]:,}") for key, count in tensors.items()]
    return [table(("part", "weights", "tensors", "parameters"), cells), *options(provenance.get("options"))]


def options(found: object) -> list[str]:
    if not isinstance(found, dict) or not found:
        return []
    pairs = (f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in found.items())
    return [f"Options: {', '.join(map(code, pairs))}."]


def trained(provenance: Mapping[str, Any]) -> list[str]:
    """The recipe of a run, and the last metrics of its training and evaluations."""
    said = [f"It was trained by `pairform adapt`; these are the weights of step {code(provenance.get('step'))}."]
    metrics = provenance.get("metrics")
    lines = [line for line in metrics if isinstance(line, dict)] if isinstance(metrics, list) else []
    cells = [
        (
            " ".join(code(line[name]) for name in ("split", "objective") if isinstance(line.get(name), str)) or "run",
            *(number(line.get(name)) for name in ("step", *METRICS)),
        )
        for line in lines
    ]
    if cells:
        said.append(table(("metrics", "step", *METRICS), cells))
    recipe = json.dumps(provenance.get("recipe"), indent=2, ensure_ascii=False)
    if len(recipe) <= RECIPE_LENGTH and "recipe" in provenance:
        lines_of = "\n".join(printable(line) for line in recipe.split("\n"))
        said.append(f"<details><summary>Recipe</summary>\n\n````json\n{lines_of}\n````\n\n</details>")
    return said


def number(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else ""
