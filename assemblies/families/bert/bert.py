"""BERT (arXiv 1810.04805), RoBERTa (arXiv 1907.11692) and XLM-RoBERTa (arXiv 1911.02116) in transformers' files, as encoders.

As a decoder BERT is a part of transformers' EncoderDecoderModel. Positions count from the first token that is not padding, and
a pooler reads that token; transformers' BERT counts padding on the left too.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pairform.assemblies.families.bert.heads import head_document, to_head_config, without_pooler
from pairform.assemblies.families.bert.kinds import KINDS, Kind
from pairform.assemblies.families.bert.names import lm_doubles, table, table_of
from pairform.assemblies.families.bert.stack import offset_of, stack_config, stack_document
from pairform.assemblies.families.config import checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError


def to_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(kind.config, config)
    for field in ("is_decoder", "add_cross_attention"):
        if config[field]:
            raise SpecError(Problem(field, "true", "false: a decoder is a part of transformers' EncoderDecoderModel here"))
    if config["is_causal"]:
        raise SpecError(Problem("is_causal", "true", "false, or nothing: this is an encoder"))
    return {
        "assembly": "encoder_only",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        "encoder": stack_document(kind, config),
        "head": head_document(kind, config),
        "initializer_range": config["initializer_range"],
    }


def to_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    return stack_config(spec.last, spec.vocabulary) | tokens_config(spec, "encoder") | to_head_config(kind, spec)


def writes(kind: Kind, spec: ModelSpec) -> bool:
    """XLM-RoBERTa's models compute the same as RoBERTa's, and are written as those."""
    offset = None if spec.assembly != "encoder_only" else offset_of(spec.last)
    return offset is not None and kind.after_padding is (offset > 0)


def doubles(kind: Kind, spec: ModelSpec) -> dict[str, str]:
    """Without tied embeddings, transformers' class has a second bias, which it does not read."""
    untied = spec.head.name == "masked_lm" and spec.head_tie is None
    return lm_doubles(kind, "", tied=False) if untied else {}


FAMILIES = tuple(
    Family(
        kind.model_type,
        table(kind, "masked_lm", tied=False),
        partial(to_document, kind),
        partial(to_config, kind),
        partial(writes, kind),
        base_prefix="",
        written=partial(table_of, kind),
        by_spec=True,
        doubles=partial(doubles, kind),
        by_names=without_pooler,
    )
    for kind in KINDS
)
