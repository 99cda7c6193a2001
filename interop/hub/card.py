"""The model card: what a model is, how to use it, how it was made, its licence; written from the folder's own files."""

import json
from pathlib import Path
from typing import Any

from pairform.assemblies.analysis.diagrams import diagram
from pairform.assemblies.analysis.inspection import inspect
from pairform.assemblies.checkpoints.reading.file_names import PROVENANCE
from pairform.assemblies.checkpoints.reading.hub import find_folder
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder
from pairform.assemblies.checkpoints.reading.weights import exists
from pairform.assemblies.checkpoints.writing.bases import WORD, Base, bases_in, joint_license, recorded_bases
from pairform.assemblies.checkpoints.writing.config_file import class_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.interop.hub import licences, origin
from pairform.interop.hub.escaping import code, plain, table
from pairform.interop.hub.paths import without_paths
from pairform.registry import read_json

AUTO = {
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}
"""The Auto class for the end of a class's name; AutoModel for others."""
PAIRFORM = "With pairform (`pip install pairform`):"
DIAGRAM = 50_000
"""Characters of a diagram that Mermaid refuses to draw."""
TASKS = {
    "lm": "text-generation",
    "masked_lm": "fill-mask",
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
    "span": "question-answering",
    "sentence_embedding": "sentence-similarity",
}
"""The hub's task by head; `feature-extraction` for others."""


def model_card(folder: str | Path, *, repository: str | None = None, license: str | None = None) -> str:
    """Write the model card of a folder as Markdown, with the metadata that the hub reads.

    Args:
        folder: a model's folder, in pairform's format or transformers'.
        repository: the hub id under which the card shows how to load the model. Default: the folder's name.
        license: the licence, as the hub names it. Default: Gemma's terms if they bind one of the models that this one was made
            of, else the licence that all of them share; if that is unknown, the card says so.

    Returns:
        The text of the card.

    Raises:
        CheckpointError, SpecError: the folder holds no model.
        InputError: `license` is not a licence's name.
    """
    return card_of(ModelFolder(find_folder(folder)), repository, licences.check_license(license))


def card_of(model: ModelFolder, repository: str | None, license: str | None) -> str:
    spec, bases, provenance = model.spec, published_bases(model), published_provenance(model)
    name = repository or model.path.resolve().name
    counts = inspect(spec).parameters
    parts = [(code(part), f"{count:,}") for part, count in counts.items() if count]
    sections = {
        "Use": usage(model, spec, name),
        "Architecture": [drawing(spec), table(("part", "parameters"), parts)],
        "How it was made": origin.section(provenance, recorded_bases(model) or [base for base in bases if base.revision]),
        "Licence": licences.section(bases, license),
    }
    text = [f"# {plain(name.rpartition('/')[2])}", summary(spec, counts["total"])]
    for title, paragraphs in sections.items():
        text += [f"## {title}", *paragraphs]
    return f"---\n{metadata(model, spec, bases, license)}\n---\n\n" + "\n\n".join(text) + "\n"


def drawing(spec: ModelSpec) -> str:
    drawn = diagram(spec, "mermaid")
    return f"```mermaid\n{drawn}```" if len(drawn) < DIAGRAM else "Its layers differ too much for a diagram here."


def published_bases(model: ModelFolder) -> tuple[Base, ...]:
    """The models that a folder's weights come from. A folder is no base of itself, but the licence that binds it stays."""
    return recorded_bases(model) or tuple(base for base in bases_in(model) if base.revision or base.license)


def published_provenance(model: ModelFolder) -> dict[str, Any]:
    """The provenance without the places of files on this machine; empty if there is none."""
    path = model.path / PROVENANCE
    return without_paths(read_json(path)) if exists(path) else {}


def metadata(model: ModelFolder, spec: ModelSpec, bases: tuple[Base, ...], license: str | None) -> str:
    """The card's YAML."""
    from huggingface_hub import ModelCardData

    types = sorted({base.model_type for base in bases if base.model_type})
    stack = next(iter(spec.stacks.values()))
    task = TASKS.get(spec.head.name, "feature-extraction")
    data = ModelCardData(
        library_name=library(model),
        license=license or joint_license(bases),
        base_model=[base.name for base in bases if base.revision] or None,
        pipeline_tag="image-text-to-text" if task == "text-generation" and stack.vision is not None else task,
        tags=["pairform", spec.assembly.replace("_", "-"), *types],
    )
    return data.to_yaml().strip()


def library(model: ModelFolder) -> str:
    """The library in whose layout a folder is."""
    if model.modules is not None:
        return "sentence-transformers"
    return "pairform" if model.family is None else "transformers"


def summary(spec: ModelSpec, parameters: int) -> str:
    stacks = " and ".join(
        f"{'an' if part == 'encoder' else 'a'} {part} of {stack.depth} layers, {stack.width} wide"
        for part, stack in spec.stacks.items()
    )
    return f"A model with {stacks}, {parameters:,} parameters in all, made with pairform."


def usage(model: ModelFolder, spec: ModelSpec, name: str) -> list[str]:
    """How to load the model."""
    ours = f"```python\nimport pairform\n\nmodel = pairform.load({json.dumps(name)})\n```"
    if model.modules is not None:
        sentences = f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({json.dumps(name)})"
        register = "" if model.family is not None else "import pairform.interop.transformers  # registers the classes\n"
        return [PAIRFORM, ours, "With sentence-transformers:", f"```python\n{register}{sentences}\n```"]
    ending = class_of(spec).removeprefix("Pairform")
    auto = AUTO.get(ending, "AutoModel")
    if model.family is not None:  # the class that wrote the folder, or would have
        architectures = model.config.get("architectures")
        named = architectures[0] if isinstance(architectures, list) and architectures else None
        auto = named if isinstance(named, str) and WORD.fullmatch(named) and named.isidentifier() else auto
    registering = ["", "import pairform.interop.transformers  # registers the classes"] if model.family is None else []
    lines = [f"from transformers import {auto}", *registering, "", f"model = {auto}.from_pretrained({json.dumps(name)})"]
    theirs = "\n".join(lines)
    needs = "with `pip install 'pairform[transformers]'`" if model.family is None else "without pairform"
    return [PAIRFORM, ours, f"With transformers, {needs}:", f"```python\n{theirs}\n```"]
