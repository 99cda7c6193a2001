"""config.json beside spec.json: what transformers, and the libraries built on it, read of our folders."""

from typing import Any

from pairform.assemblies.families.tokens import tokens_config
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.heads.token_heads import LMHead
from pairform.blocks.spec_fields import HeadSpec

MODEL_TYPE = "pairform"
"""`model_type` of our folders."""
CLASSES = {
    ("lm", "encoder_decoder"): "ForConditionalGeneration",
    ("lm", "decoder_only"): "ForCausalLM",
    ("masked_lm", "encoder_only"): "ForMaskedLM",
    ("sequence_classification", None): "ForSequenceClassification",
    ("token_classification", None): "ForTokenClassification",
    ("span", None): "ForQuestionAnswering",
}
"""What follows the prefix in the name of a model's class, by its head and assembly; other models are the base class."""


def class_of(spec: ModelSpec) -> str:
    """The name of the class that the Auto classes choose for a spec."""
    known = CLASSES.get((spec.head.name, spec.assembly)) or CLASSES.get((spec.head.name, None))
    return "Pairform" + (known or "Model")


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """The fields of transformers that follow from a spec: classes, sizes, tokens and labels."""
    last = spec.last
    attention = last.layers[0].self_attention
    lengths = [stack.max_length for stack in spec.stacks.values() if stack.max_length is not None]
    labels = HeadSpec.of(spec.head).labels
    names = labels if isinstance(labels, tuple) else [f"LABEL_{number}" for number in range(labels or 0)]
    numbered = {str(number): name for number, name in enumerate(names)}
    return {
        "architectures": [class_of(spec)],
        "is_encoder_decoder": spec.assembly == "encoder_decoder",
        "is_decoder": spec.assembly == "decoder_only",
        "vocab_size": spec.vocabulary_of(list(spec.stacks)[-1]),
        "hidden_size": next(iter(spec.stacks.values())).width,  # of embeddings of the input
        "num_hidden_layers": last.depth,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads or attention.heads,
        "initializer_range": spec.initializer_range,
        "tie_word_embeddings": spec.head_tie is not None or spec.tie_embeddings,
        **({"max_position_embeddings": min(lengths)} if lengths else {}),
        **projection_config(spec),
        **tokens_config(spec),
        **({"id2label": numbered, "label2id": {name: int(number) for number, name in numbered.items()}} if names else {}),
    }


def projection_config(spec: ModelSpec) -> dict[str, Any]:
    """What is done with the product of hidden states and the matrix of a language model's head."""
    if not isinstance(spec.head, LMHead.Spec):
        return {}
    factor = spec.last.width**-0.5 if spec.head.scale == "inverse_sqrt_width" else spec.head.scale
    found = {"logit_scale": factor, "final_logit_softcapping": spec.head.softcap}
    return {name: value for name, value in found.items() if value is not None}


def config_document(spec: ModelSpec, dtype: str | None) -> dict[str, Any]:
    """config.json of our format."""
    return {"model_type": MODEL_TYPE, **config_of(spec), "spec": spec.document(), **({"dtype": dtype} if dtype else {})}
