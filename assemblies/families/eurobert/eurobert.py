"""EuroBERT (arXiv 2503.05500) in transformers' files: Llama's layers as an encoder.

A classifier that reads the first token reads the first that is not padding; transformers' reads padding on the left.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pairform.assemblies.families.config import EndTokens, Token, checked, require_is_causal
from pairform.assemblies.families.family import Family, NameTable, Row
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.families.rows import PRE_NORMS, stack_rows
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.positions.rotary import RotaryPosition
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Problem, SpecError

NAMES = NameTable(
    (
        *stack_rows("model.", "encoder", PRE_NORMS),
        Row("lm_head.{tensor}", "head.{tensor}"),
        Row("dense.{tensor}", "head.transform.dense.{tensor}"),
        Row("classifier.{tensor}", "head.proj.{tensor}"),
    )
)
CLASSES = {
    "masked_lm": "EuroBertForMaskedLM",
    "sequence_classification": "EuroBertForSequenceClassification",
    "token_classification": "EuroBertForTokenClassification",
    "none": "EuroBertModel",
}
POOLING = {"bos": "first", "mean": "mean", "late": "late_mean"}


class EuroBertConfig(LlamaConfig):
    vocab_size: PositiveInt = 128_256
    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_hidden_layers: Depth = 12
    num_attention_heads: PositiveInt = 12
    max_position_embeddings: PositiveInt = 8192
    rms_norm_eps: PositiveFloat = 1e-5
    pad_token_id: Token = 128_001
    bos_token_id: Token = 128_000
    eos_token_id: EndTokens = 128_001
    is_causal: bool = False
    classifier_pooling: Literal["bos", "mean", "late"] = "late"


KIND = llama.Kind("eurobert", "EuroBert", EuroBertConfig, mlp_bias=True)


def to_document(config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(EuroBertConfig, config)
    require_is_causal(config, False)
    if config["hidden_size"] % config["num_attention_heads"]:
        found = f"{config['hidden_size']} with {config['num_attention_heads']} heads"
        raise SpecError(Problem("hidden_size", found, "a multiple of num_attention_heads, as transformers' eurobert asks"))
    named = config | {"architectures": config["architectures"] or [CLASSES["none"]]}
    head = head_document(named, CLASSES, softcap=None, tie="encoder")
    if head["name"] == "masked_lm":
        tied = {"tie": "encoder"} if config["tie_word_embeddings"] else {}
        head = {"name": "masked_lm", "bias": config["mlp_bias"]} | tied
    if head["name"] == "sequence_classification":
        head |= {"pooling": POOLING[config["classifier_pooling"]], "transform": {"activation": "gelu"}}
    return {
        "assembly": "encoder_only",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        "encoder": llama.stack_document(KIND, config),
        "head": head,
        "initializer_range": config["initializer_range"],
    }


def to_config(spec: ModelSpec) -> dict[str, Any]:
    head = HeadSpec.of(spec.head)
    config = llama.to_stack_config(KIND, spec) | tokens_config(spec, "encoder") | head_config(spec, CLASSES)
    config.pop("is_causal")
    if head.name == "masked_lm":
        config["tie_word_embeddings"] = head.tie is not None
    if head.name == "sequence_classification":
        config["classifier_pooling"] = next((theirs for theirs, ours in POOLING.items() if ours == head.pooling), "late")
    return config | {"attention_dropout": spec.last.layers[0].self_attention.dropout}


def writes(spec: ModelSpec) -> bool:
    stack = spec.last
    plain = stack.vision is None and stack.position is None and stack.embedding_norm is None and not stack.qk_normed
    rotary = all(isinstance(layer.self_attention.position, RotaryPosition.Spec) for layer in stack.layers)
    return spec.assembly == "encoder_only" and plain and rotary and stack.layers[0].placement == "pre"


FAMILIES = (Family("eurobert", NAMES, to_document, to_config, writes),)
