"""The decoders that transformers' EncoderDecoderModel may have here: BERT, RoBERTa and GPT-2, with cross-attention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pairform.assemblies.families.bert import kinds
from pairform.assemblies.families.bert import names as bert_names
from pairform.assemblies.families.bert.heads import lm_head
from pairform.assemblies.families.bert.stack import offset_of, stack_config, stack_document
from pairform.assemblies.families.config import Config
from pairform.assemblies.families.family import Fused, NameTable, Row
from pairform.assemblies.families.gpt2 import gpt2
from pairform.assemblies.families.gpt2 import names as gpt2_names
from pairform.assemblies.specs.model import StackSpec

PREFIX = "decoder."
Document = dict[str, Any]


@dataclass(frozen=True)
class Decoder:
    """A family of decoders.

    architecture: transformers' class.
    stack, head:  the documents of our stack and head for a checked configuration.
    to_config:    the inverse of `stack`, with a vocabulary size.
    is_like:      whether a stack is one of this family.
    names:        of its tensors, with tied embeddings or without.
    doubles:      as for `Family`, without tied embeddings.
    """

    model_type: str
    architecture: str
    config: type[Config]
    stack: Callable[[Mapping[str, Any]], Document]
    head: Callable[[Mapping[str, Any]], Document]
    to_config: Callable[[StackSpec, int], Document]
    is_like: Callable[[StackSpec], bool]
    names: Callable[[bool], NameTable]
    doubles: Mapping[str, str]


def bert_like(kind: kinds.Kind) -> Decoder:
    def names(tied: bool) -> NameTable:
        base = PREFIX + kind.prefix
        double = bert_names.lm_doubles(kind, PREFIX, tied=tied)
        rows = (*bert_names.stack_rows(base, "decoder"), *bert_names.lm_rows(kind, PREFIX, tied=tied))
        unread = (
            *(base + buffer for buffer in bert_names.BUFFERS),
            base + "pooler.",
            PREFIX + "cls.seq_relationship.",
            *double,
        )
        return NameTable(rows, unread=unread, spares=tuple(Row(name, "head.bias") for name in double))

    return Decoder(
        kind.model_type,
        kind.classes + kind.causal_lm,
        kind.config,
        stack=partial(stack_document, kind, decoder=True),
        head=partial(lm_head, kind, name="lm", stack="decoder"),
        to_config=stack_config,
        is_like=lambda stack: (offset := offset_of(stack)) is not None and kind.after_padding is (offset > 0),
        names=names,
        doubles=bert_names.lm_doubles(kind, PREFIX, tied=False),
    )


def gpt2_stack(config: Mapping[str, Any]) -> Document:
    stack = gpt2.stack_document(config)
    own = stack["layer"]["branches"]["self_attention"]
    cross = {field: value for field, value in own.items() if field != "mask"} | {"name": "cross_attention"}
    stack["layer"]["branches"]["cross_attention"] = cross
    return stack


def gpt2_head(config: Mapping[str, Any]) -> Document:
    return {"name": "lm"} | ({"tie": "decoder"} if config["tie_word_embeddings"] else {})


def gpt2_table(tied: bool) -> NameTable:
    base = PREFIX + gpt2_names.BASE
    rows: tuple[Row | Fused, ...] = (*gpt2_names.stack_rows(base, "decoder"), Row(PREFIX + "lm_head.weight", "head.weight"))
    attentions = (f"{base}h.{{layer}}.{name}." for name in ("attn", "crossattention"))
    return NameTable(rows, unread=tuple(name + buffer for name in attentions for buffer in ("bias", "masked_bias")))


GPT2 = Decoder(
    "gpt2",
    "GPT2LMHeadModel",
    gpt2.GPT2Config,
    stack=gpt2_stack,
    head=gpt2_head,
    to_config=lambda stack, vocabulary: gpt2.stack_config(stack) | {"vocab_size": vocabulary},
    is_like=lambda stack: stack.position is not None and stack.position.name == "learned" and stack.layer.placement == "pre",
    names=gpt2_table,
    doubles={},
)
DECODERS = {decoder.model_type: decoder for decoder in (*map(bert_like, kinds.KINDS), GPT2)}
