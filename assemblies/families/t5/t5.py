"""T5 (arXiv 1910.10683), T5 v1.1, mT5 (arXiv 2010.11934) and UMT5 (arXiv 2304.09151) in transformers' files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from pairform.assemblies.families.config import EARLIER_ACTIVATION_NAMES, Config, EndTokens, Token, activation_named, checked
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.gemma import common as gemma
from pairform.assemblies.families.heads import head_config, head_document
from pairform.assemblies.families.t5.names import COPIES, NAMES, written
from pairform.assemblies.families.tokens import tokens_config, tokens_document
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.positions.score_biases import T5RelativePosition
from pairform.blocks.spec_fields import HeadSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability, Problem, SpecError, shorten


class T5Config(Config):
    """transformers' defaults."""

    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }

    architectures: list[str] | None = None
    vocab_size: PositiveInt = 32_128
    d_model: PositiveInt = 512
    d_kv: PositiveInt = 64
    d_ff: PositiveInt = 2048
    num_layers: Depth = 6
    num_decoder_layers: Depth | None = None
    num_heads: PositiveInt = 8
    relative_attention_num_buckets: PositiveInt = 32
    relative_attention_max_distance: PositiveInt = 128
    dropout_rate: Probability = 0.1
    layer_norm_epsilon: PositiveFloat = 1e-6
    initializer_range: PositiveFloat = 0.02
    feed_forward_proj: str = "relu"
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None
    pad_token_id: Token = 0
    eos_token_id: EndTokens = 1
    bos_token_id: Token = None
    decoder_start_token_id: Token = None
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    is_encoder_decoder: bool = True


class MT5Config(T5Config):
    vocab_size: PositiveInt = 250_112
    d_ff: PositiveInt = 1024
    num_layers: Depth = 8
    num_heads: PositiveInt = 6
    feed_forward_proj: str = "gated-gelu"
    decoder_start_token_id: Token = 0


class UMT5Config(MT5Config):
    """mT5's defaults."""


@dataclass(frozen=True)
class Kind:
    """How T5, mT5 and UMT5 differ: names of classes, defaults, and what follows.

    scales:       whether the head scales the hidden states: as the configuration says, or always, or never.
    own_tables:   whether each layer has a table of positions of its own, or all share the first one's.
    """

    model_type: str
    classes: str
    config: type[T5Config]
    scales: Literal["as_configured", "always", "never"]
    own_tables: bool = False

    def architectures(self, encoder_only: bool) -> dict[str, str]:
        base = "EncoderModel" if encoder_only else "Model"
        return {"lm": f"{self.classes}ForConditionalGeneration", "none": self.classes + base}


def to_document(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    config = checked(kind.config, config)
    encoder_only = config["architectures"] == [kind.classes + "EncoderModel"]
    if not encoder_only and not config["is_encoder_decoder"]:
        expected = f"true: an encoder alone is a {kind.classes}EncoderModel"
        raise SpecError(Problem("is_encoder_decoder", "false", expected))
    refuse_is_causal(config, encoder_only)
    head = head_document(config, kind.architectures(encoder_only), softcap=None, tie="encoder")
    scaled = config["scale_decoder_outputs"]
    as_configured = kind.scales == "as_configured" and (config["tie_word_embeddings"] if scaled is None else scaled)
    if (as_configured or kind.scales == "always") and head["name"] == "lm":
        head["scale"] = "inverse_sqrt_width"
    depths = {"encoder": config["num_layers"], "decoder": config["num_decoder_layers"] or config["num_layers"]}
    parts = ["encoder"] if encoder_only else ["encoder", "decoder"]
    return {
        "assembly": "encoder_only" if encoder_only else "encoder_decoder",
        "vocabulary": config["vocab_size"],
        "tokens": tokens_document(config),
        **{part: stack_document(kind, config, part, depths[part]) for part in parts},
        "tie_embeddings": not encoder_only,
        "head": head,
        "initializer_range": config["initializer_range"],
    }


def refuse_is_causal(config: Mapping[str, Any], encoder_only: bool) -> None:
    """transformers applies the field to both stacks: true makes the encoder causal, false makes the decoder bidirectional."""
    if "is_causal" in config and not (encoder_only and config["is_causal"] is False):
        expected = "false" if encoder_only else "nothing: transformers applies the field to encoder and decoder alike"
        raise SpecError(Problem("is_causal", shorten(config["is_causal"]), expected))


def stack_document(kind: Kind, config: Mapping[str, Any], part: str, depth: int) -> dict[str, Any]:
    """The document of our stack for a checked configuration."""
    gated, activation = feed_forward(config)
    dropout = config["dropout_rate"]
    # scores are not scaled: T5 has the factor in the initial weights of the queries
    attention = {"heads": config["num_heads"], "head_dim": config["d_kv"], "scale": 1.0, "dropout": dropout}
    position = {
        "name": "t5_relative",
        "buckets": config["relative_attention_num_buckets"],
        "max_distance": config["relative_attention_max_distance"],
        "bidirectional": part == "encoder",
        "shared": not kind.own_tables,
    }
    own = {"name": "self_attention", **attention, "position": position, "mask": {"causal": part == "decoder"}}
    cross = {"cross_attention": {"name": "cross_attention", **attention}} if part == "decoder" else {}
    inner = {
        "name": "gated" if gated else "mlp",
        "activation": activation,
        "hidden": config["d_ff"],
        "dropout": dropout,
        "wide_output": True,
    }
    first = {"branches": {"self_attention": {"position": {"shared": False}}}}
    return {
        "width": config["d_model"],
        "depth": depth,
        "embedding": {"name": "token", "train_pad": True},
        "layer": {
            "norm": {"name": "rmsnorm", "eps": config["layer_norm_epsilon"]},
            "placement": "pre",
            "order": ["self_attention", "cross_attention", "feed_forward"],
            "branches": {"self_attention": own, **cross, "feed_forward": inner},
            "dropout": dropout,
        },
        "overrides": [] if kind.own_tables else [{"layers": [0], "patch": first}],
        "dropout": dropout,
    }


def feed_forward(config: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the feed-forward is gated, and its activation: `gated-gelu` means the tanh form, where `dense_act_fn` does not
    say another."""
    written = config["feed_forward_proj"]
    gate, _, name = written.rpartition("-")
    if gate not in ("", "gated"):
        raise SpecError(Problem("feed_forward_proj", repr(written), "an activation, or gated- and an activation"))
    field = "feed_forward_proj" if config["dense_act_fn"] is None else "dense_act_fn"
    activation = config["dense_act_fn"] or ("gelu_new" if written == "gated-gelu" else name)
    gated = bool(gate) if config["is_gated_act"] is None else config["is_gated_act"]
    return gated, activation_named(activation, field)


def to_config(kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    stack = next(iter(spec.stacks.values()))
    layer = stack.layers[0]
    attention, inner = gemma.branch(layer, "self_attention"), gemma.branch(layer, "feed_forward")
    position, heads = attention.get("position", {}), attention.get("heads", 1)
    gated, activation = inner.get("name") == "gated", EARLIER_ACTIVATION_NAMES.get(inner.get("activation", ""), "relu")
    head = head_config(spec, kind.architectures(spec.assembly == "encoder_only"))
    scaled = {"scale_decoder_outputs": HeadSpec.of(spec.head).scale is not None} if kind.scales == "as_configured" else {}
    return (
        {
            "d_ff": inner.get("hidden", 1),
            "d_kv": attention.get("head_dim") or stack.width // heads,
            "d_model": stack.width,
            "dense_act_fn": activation,
            "dropout_rate": layer.dropout,
            "feed_forward_proj": f"gated-{activation}".replace("gelu_new", "gelu") if gated else activation,
            "is_encoder_decoder": spec.assembly == "encoder_decoder",
            "is_gated_act": gated,
            "layer_norm_epsilon": layer.norm.document().get("eps", 1e-6),
            "num_decoder_layers": spec.last.depth,
            "num_heads": heads,
            "num_layers": stack.depth,
            "relative_attention_max_distance": position.get("max_distance", 128),
            "relative_attention_num_buckets": position.get("buckets", 32),
            "vocab_size": spec.vocabulary,
        }
        | tokens_config(spec)
        | head
        | scaled
    )


def writes(kind: Kind, spec: ModelSpec) -> bool:
    """mT5's models compute the same as T5's, and are written as those."""
    if not isinstance(spec.last.layers[0].self_attention.position, T5RelativePosition.Spec):
        return False
    later = [layer.self_attention.position for stack in spec.stacks.values() for layer in stack.layers[1:]]
    own_tables = any(isinstance(position, T5RelativePosition.Spec) and not position.shared for position in later)
    return own_tables == kind.own_tables


KINDS = (
    Kind("t5", "T5", T5Config, scales="as_configured"),
    Kind("mt5", "MT5", MT5Config, scales="never"),
    Kind("umt5", "UMT5", UMT5Config, scales="always", own_tables=True),
)
FAMILIES = tuple(
    Family(
        kind.model_type,
        NAMES,
        partial(to_document, kind),
        partial(to_config, kind),
        partial(writes, kind),
        base_prefix="",
        written=written,
        copies=COPIES,
    )
    for kind in KINDS
)
