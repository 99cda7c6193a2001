"""BART (arXiv 1910.13461), mBART (arXiv 2001.08210), Marian (arXiv 1804.00344), Pegasus (arXiv 1912.08777) and M2M-100 (arXiv
2010.11125), with NLLB, in transformers' files."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from pairform.assemblies.families.bart.config import BartConfig, M2M100Config, MarianConfig, MBartConfig, PegasusConfig
from pairform.assemblies.families.bart.names import SHARED, names, written
from pairform.assemblies.families.config import ACTIVATION_NAMES, activation_named, checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.t5.t5 import refuse_is_causal
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.stack import StackSpec
from pairform.blocks.positions.absolute import LearnedPosition, SinusoidalPosition
from pairform.registry import Problem, Sizes, SpecError

OFFSET = 2
"""Rows of a learned table before that of the first position."""


@dataclass(frozen=True)
class Kind:
    """How BART and its relatives differ.

    lm:             what follows the prefix of the class with a head.
    placement:      of the norms; under "pre" each stack has a final norm.
    positions:      a learned table, sines and cosines in halves, or those as fairseq computes them.
    embedding_norm: whether embeddings with their positions are normalised.
    bias:           whether the head has a fixed bias.
    wrap:           whether labels are shifted right behind the last of them.
    constants:      whether files hold the tables of sines.
    """

    model_type: str
    classes: str
    config: type[BartConfig]
    placement: Literal["pre", "post"]
    positions: Literal["learned", "sinusoidal", "fairseq"]
    lm: str = "ForConditionalGeneration"
    embedding_norm: bool = False
    bias: bool = True
    wrap: bool = False
    constants: Literal["always", "without_head", "never"] = "never"

    @property
    def architectures(self) -> dict[str, str]:
        return {"lm": self.classes + self.lm, "none": f"{self.classes}Model"}

    def position(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The document of the stacks' position, for a checked configuration."""
        if self.positions == "learned":
            return {"name": "learned", "length": config["max_position_embeddings"] + OFFSET, "offset": OFFSET}
        if self.positions == "sinusoidal":
            return {"name": "sinusoidal", "layout": "halves"}
        if config["pad_token_id"] is None:
            raise SpecError(Problem("pad_token_id", "none", "a token id: positions are counted from the one after it"))
        if config["pad_token_id"] == config["decoder_start_token_id"]:
            expected = "another than the padding token, which has no position in transformers' model"
            raise SpecError(Problem("decoder_start_token_id", str(config["pad_token_id"]), expected))
        return {"name": "sinusoidal", "layout": "halves", "endpoint": True, "offset": config["pad_token_id"] + 1}


def to_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(kind.config, config)
    if not config["is_encoder_decoder"]:
        expected = f"true: only {' and '.join(kind.architectures.values())} are read"
        raise SpecError(Problem("is_encoder_decoder", "false", expected))
    refuse_is_causal(config, False)
    for part in ("encoder", "decoder"):
        if rate := config[f"{part}_layerdrop"]:
            warnings.warn(f"{part}_layerdrop is {rate} and is not read: training drops no whole layers", stacklevel=2)
    tied, shared = config["tie_word_embeddings"], config.get("share_encoder_decoder_embeddings", True)
    head = head_document(config, kind.architectures, softcap=None, tie="encoder" if shared else "decoder")
    if kind.bias and head["name"] == "lm":
        head["bias"] = "fixed"
    vocabularies = {"encoder": config["vocab_size"], "decoder": config["vocab_size"]}
    if not shared:
        vocabularies["decoder"] = config["decoder_vocab_size"] or config["vocab_size"]
    stacks = {part: stack_document(kind, config, part) for part in vocabularies}
    if vocabularies["encoder"] != vocabularies["decoder"]:
        stacks["encoder"]["vocabulary"] = vocabularies["encoder"]
    return {
        "assembly": "encoder_decoder",
        "vocabulary": vocabularies["decoder"],
        "tokens": tokens_document(config) | ({"wrap": True} if kind.wrap else {}),
        **stacks,
        "tie_embeddings": tied and shared,
        "head": head,
        "initializer_range": config["init_std"],
    }


def stack_document(kind: Kind, config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The document of our stack for a checked configuration."""
    attention = {"heads": config[f"{part}_attention_heads"], "bias": True, "dropout": config["attention_dropout"]}
    own = {"name": "self_attention", **attention, "position": {"name": "none"}, "mask": {"causal": part == "decoder"}}
    cross = {"cross_attention": {"name": "cross_attention", **attention}} if part == "decoder" else {}
    inner = {
        "name": "mlp",
        "activation": activation_named(config["activation_function"], "activation_function"),
        "hidden": config[f"{part}_ffn_dim"],
        "bias": True,
        "dropout": config["activation_dropout"],
    }
    return {
        "width": config["d_model"],
        "depth": config[f"{part}_layers"],
        "embedding": {"name": "token", "scale": "sqrt_width" if config["scale_embedding"] else 1.0},
        "position": kind.position(config),
        **({"embedding_norm": {"name": "layernorm"}} if kind.embedding_norm else {}),
        "layer": {
            "norm": {"name": "layernorm"},
            "placement": kind.placement,
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {"self_attention": own, **cross, "feed_forward": inner},
            "dropout": config["dropout"],
        },
        "final_norm": {"name": "layernorm" if kind.placement == "pre" else "none"},
        "dropout": config["dropout"],
        "final_dropout": 0.0,
        "max_length": None if kind.positions == "learned" else config["max_position_embeddings"],
    }


def to_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    encoder, decoder = spec.encoder, spec.decoder
    assert encoder is not None, "checked by `writes`"
    assert decoder is not None, "checked by `writes`"
    config: dict[str, Any] = {}
    for part, stack in spec.stacks.items():
        attention, inner = gemma.branch(stack.layers[0], "self_attention"), gemma.branch(stack.layers[0], "feed_forward")
        config |= {
            f"{part}_attention_heads": attention.get("heads", 1),
            f"{part}_ffn_dim": inner.get("hidden", 1),
            f"{part}_layerdrop": 0.0,
            f"{part}_layers": stack.depth,
        }
    config |= {
        "activation_dropout": inner.get("dropout", 0.0),
        "activation_function": ACTIVATION_NAMES.get(inner.get("activation", ""), "gelu"),
        "attention_dropout": attention.get("dropout", 0.0),
        "d_model": encoder.width,
        "dropout": encoder.layer.dropout,
        "forced_eos_token_id": None,
        "init_std": spec.initializer_range,
        "is_encoder_decoder": True,
        "max_position_embeddings": longest(encoder),
        "scale_embedding": encoder.embedding.document().get("scale") == "sqrt_width",
        "vocab_size": spec.vocabulary_of("encoder"),
    }
    config |= {"bos_token_id": None, "decoder_start_token_id": None} | tokens_config(spec)
    config |= head_config(spec, kind.architectures)
    if issubclass(kind.config, MarianConfig):
        config["decoder_vocab_size"] = spec.vocabulary
        config["share_encoder_decoder_embeddings"] = spec.tie_embeddings
    else:
        config["tie_word_embeddings"] = spec.tie_embeddings
    return config


def longest(stack: StackSpec) -> int:
    """`max_position_embeddings`: positions of a learned table, or the longest sequence in training."""
    position = stack.position
    return position.length - OFFSET if isinstance(position, LearnedPosition.Spec) else stack.max_length or 1024


def writes(kind: Kind, spec: ModelSpec) -> bool:
    if spec.encoder is None or spec.decoder is None or spec.encoder.layer.placement != kind.placement:
        return False
    position = spec.encoder.position
    if isinstance(position, SinusoidalPosition.Spec):
        return kind.positions == ("fairseq" if position.endpoint else "sinusoidal")
    return isinstance(position, LearnedPosition.Spec) and kind.positions == "learned"


def doubles(kind: Kind, spec: ModelSpec) -> dict[str, str]:
    """Files of untied tables hold one more, which nothing reads."""
    if spec.tie_embeddings or issubclass(kind.config, MarianConfig):
        return {}
    return {prefixed(SHARED, spec): prefixed("model.encoder.embed_tokens.weight", spec)}


def constants(kind: Kind, spec: ModelSpec) -> dict[str, Tensor]:
    """The tables of sines in files of some families."""
    found: dict[str, Tensor] = {}
    if kind.constants == "always" or (kind.constants == "without_head" and spec.head.name == "none"):
        for part, stack in spec.stacks.items():
            if isinstance(stack.position, SinusoidalPosition.Spec):
                position = SinusoidalPosition(stack.position, Sizes(stack.width))
                name = prefixed(f"model.{part}.embed_positions.weight", spec)
                found[name] = position.waves(torch.arange(longest(stack))).float()
    return found


def prefixed(name: str, spec: ModelSpec) -> str:
    """A name as it is in files of `spec`: those of models without a head lack the prefix."""
    return name.removeprefix("model.") if spec.head.name == "none" else name


KINDS = (
    Kind("bart", "Bart", BartConfig, "post", "learned", embedding_norm=True),
    Kind("mbart", "MBart", MBartConfig, "pre", "learned", embedding_norm=True, wrap=True),
    Kind("marian", "Marian", MarianConfig, "post", "sinusoidal", lm="MTModel", constants="without_head"),
    Kind("pegasus", "Pegasus", PegasusConfig, "pre", "sinusoidal", constants="always"),
    Kind("m2m_100", "M2M100", M2M100Config, "pre", "fairseq", bias=False),
)
TABLES = {
    kind.model_type: names("pre_norm" if kind.placement == "pre" else "post_norm", learned=kind.positions == "learned")
    for kind in KINDS
}
FAMILIES = tuple(
    Family(
        kind.model_type,
        TABLES[kind.model_type],
        partial(to_document, kind),
        partial(to_config, kind),
        partial(writes, kind),
        written=partial(written, TABLES[kind.model_type]),
        doubles=partial(doubles, kind),
        constants=partial(constants, kind),
        zeros=frozenset({"head.bias"}),
    )
    for kind in KINDS
)
