"""Heads in config.json and in specs, and decoder-only models, whose heads all families share."""

from collections.abc import Collection, Mapping
from typing import Any

from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Problem, SpecError, shorten

OLD_NAMES = {"LLaMAForCausalLM": "LlamaForCausalLM", "T5WithLMHeadModel": "T5ForConditionalGeneration"}
"""Names of architectures in files of 2023 and 2019."""
PROBLEMS = {
    "regression": "regression",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


def architectures(classes: str, lm: str = "ForCausalLM", without: Collection[str] = ()) -> dict[str, str]:
    """A family's class for each of our heads, by the prefix of its names; `without` are heads that the family lacks."""
    found = {
        "lm": classes + lm,
        "sequence_classification": f"{classes}ForSequenceClassification",
        "token_classification": f"{classes}ForTokenClassification",
        "none": f"{classes}Model",
    }
    return {head: name for head, name in found.items() if head not in without}


def head_document(
    config: Mapping[str, Any], architectures: Mapping[str, str], *, softcap: Any, tie: str, classifier_bias: bool = True
) -> dict[str, Any]:
    """Our head for `architectures` in config.json. Without that field it is the language model's if the family has one for
    these stacks, else none.

    architectures: the family's class for each of our heads.
    classifier_bias: whether sequence classification has a bias; transformers' generic one has none.
    """
    named = config.get("architectures") or [architectures.get("lm", architectures["none"])]
    current = [OLD_NAMES.get(architecture, architecture) for architecture in named]
    name = next((name for name, architecture in architectures.items() if current == [architecture]), None)
    if name is None:
        raise SpecError(Problem("architectures", repr(named), f"one of {', '.join(architectures.values())}"))
    if name in ("none", "span"):
        return {"name": name}
    if name == "lm":
        tied = config.get("tie_word_embeddings", True)
        return {"name": "lm", "softcap": softcap} | ({"tie": tie} if tied else {})
    head: dict[str, Any] = {"name": name, "labels": label_names(config)}
    if name == "sequence_classification" and not classifier_bias:
        head["bias"] = False
    return head | (problem_named(config) if name == "sequence_classification" else {})


def problem_named(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the labels of a sequence classifier are, where config.json says it."""
    named = config.get("problem_type")
    return {} if named is None else {"problem": PROBLEMS.get(named, named)}


def decoder_only(
    config: Mapping[str, Any], architectures: Mapping[str, str], stack: Mapping[str, Any], *, softcap: Any
) -> dict[str, Any]:
    """The document of a text model for which transformers has its generic classifiers; `stack` is its decoder."""
    head = head_document(config, architectures, softcap=softcap, tie="decoder", classifier_bias=False)
    if head["name"] == "token_classification":
        # transformers' generic classifier looks them up in this order, with 0.1 if both are absent
        given = (config[field] for field in ("classifier_dropout", "hidden_dropout") if config.get(field) is not None)
        head["dropout"] = next(given, 0.1)
    return {
        "assembly": "decoder_only",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        "decoder": stack,
        "head": head,
        "initializer_range": config["initializer_range"],
    }


def head_config(spec: ModelSpec, architectures: Mapping[str, str], *, softcap: str | None = None) -> dict[str, Any]:
    """The inverse of `head_document`; `softcap` is the name of the field for the logits' softcap, if the family has one."""
    head = HeadSpec.of(spec.head)
    if head.name not in architectures:
        raise SpecError(Problem("head.name", repr(head.name), f"one that transformers has here: {', '.join(architectures)}"))
    config: dict[str, Any] = {"architectures": [architectures[head.name]], "tie_word_embeddings": True}
    if head.name == "lm":
        config["tie_word_embeddings"] = head.tie is not None
        config |= {} if softcap is None else {softcap: head.softcap}
    if head.labels:
        names = default_labels(head.labels) if isinstance(head.labels, int) else head.labels
        config["id2label"] = {str(label): name for label, name in enumerate(names)}
        config["label2id"] = {name: label for label, name in enumerate(names)}
    if head.problem:
        config["problem_type"] = next(theirs for theirs, ours in PROBLEMS.items() if ours == head.problem)
    return config


def decoder_only_config(spec: ModelSpec, architectures: Mapping[str, str], *, softcap: str | None = None) -> dict[str, Any]:
    """The inverse of `decoder_only`, without the stack."""
    config = tokens_config(spec) | head_config(spec, architectures, softcap=softcap)
    if spec.head.name == "token_classification":
        config["classifier_dropout"] = HeadSpec.of(spec.head).dropout
    return config | {"attention_dropout": spec.last.layers[0].self_attention.dropout}


def label_names(config: Mapping[str, Any]) -> int | list[str]:
    """The names of the labels, or their number if they have transformers' default names."""
    labels = config.get("id2label")
    if labels is None:
        return config.get("num_labels", 2)
    names = [labels.get(str(label)) for label in range(len(labels))]
    if not all(isinstance(name, str) for name in names):
        raise SpecError(Problem("id2label", shorten(labels), f"a name for each of 0 to {len(labels) - 1}"))
    return len(names) if names == default_labels(len(names)) else names


def default_labels(count: int) -> list[str]:
    return [f"LABEL_{label}" for label in range(count)]
