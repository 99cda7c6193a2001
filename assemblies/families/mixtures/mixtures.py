"""Mixtral (arXiv 2401.04088) and Qwen3 MoE (arXiv 2505.09388) in transformers' files: Mistral and Qwen3 with experts.

The coefficient of the load-balancing loss is not read: transformers adds that loss only where router logits are requested.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pairform.assemblies.families.config import ACTIVATION_NAMES, EndTokens, Token, checked
from pairform.assemblies.families.family import Family, NameTable
from pairform.assemblies.families.gemma.common import branch
from pairform.assemblies.families.heads import architectures, decoder_only
from pairform.assemblies.families.llama import llama
from pairform.assemblies.families.llama.config import LlamaConfig
from pairform.assemblies.families.mixtures import names
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Depth, PositiveFloat, PositiveInt, Problem, SpecError

NO_LOGITS = "Set it to false. The loss for training is that of `balance` in the spec's mixture, which is another average."


class MixtureConfig(LlamaConfig):
    """The fields of both."""

    aliases: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}
    num_local_experts: PositiveInt = 8
    num_experts_per_tok: PositiveInt = 2
    output_router_logits: bool = False
    sliding_window: PositiveInt | None = None


class MixtralConfig(MixtureConfig):
    intermediate_size: PositiveInt = 14_336
    num_key_value_heads: PositiveInt | None = 8
    max_position_embeddings: PositiveInt = 131_072
    rms_norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat | None = 1e6
    router_jitter_noise: float = 0.0


class Qwen3MoeConfig(MixtureConfig):
    vocab_size: PositiveInt = 151_936
    hidden_size: PositiveInt = 2048
    intermediate_size: PositiveInt = 6144
    moe_intermediate_size: PositiveInt = 768
    num_hidden_layers: Depth = 24
    num_key_value_heads: PositiveInt | None = 4
    max_position_embeddings: PositiveInt = 32_768
    bos_token_id: Token = None
    eos_token_id: EndTokens = None
    num_local_experts: PositiveInt = 128
    num_experts_per_tok: PositiveInt = 8
    norm_topk_prob: bool = False
    decoder_sparse_step: PositiveInt = 1
    mlp_only_layers: list[int] | None = None
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = 4096


@dataclass(frozen=True)
class Mixture:
    """One of the two. dense: the family without experts."""

    dense: llama.Kind
    config: type[MixtureConfig]
    table: NameTable


def to_document(kind: Mixture, given: Mapping[str, Any]) -> dict[str, Any]:
    config = {field: value for field, value in checked(kind.config, given).items() if field in kind.config.model_fields}
    if config["output_router_logits"]:
        raise SpecError(Problem("output_router_logits", "true", "false", NO_LOGITS))
    if noise := config.get("router_jitter_noise"):
        raise SpecError(Problem("router_jitter_noise", str(noise), "0: the hidden states get no noise in training"))
    if not config.get("use_sliding_window", True):
        config["sliding_window"] = None
    stack = llama.stack_document(kind.dense, config)
    dense = stack["layer"]["branches"]["feed_forward"]
    mixture = {
        "name": "mixture",
        "experts": config["num_local_experts"],
        "top_k": config["num_experts_per_tok"],
        "expert": dense | {"hidden": config.get("moe_intermediate_size", config["intermediate_size"])},
        "normalise": config.get("norm_topk_prob", True),
        "balance": 0.0,
    }
    depth, only, step = config["num_hidden_layers"], config.get("mlp_only_layers") or (), config.get("decoder_sparse_step", 1)
    sparse = [layer for layer in range(depth) if layer not in only and (layer + 1) % step == 0]
    if sparse:
        stack["layer"]["branches"]["feed_forward"] = mixture
    if 0 < len(sparse) < depth:
        plain = [layer for layer in range(depth) if layer not in sparse]
        stack["overrides"] = [{"layers": plain, "patch": {"branches": {"feed_forward": dense}}}]
    return decoder_only(config, architectures(kind.dense.classes), stack, softcap=None)


def to_config(kind: Mixture, spec: ModelSpec) -> dict[str, Any]:
    """config.json. What it cannot express shows when it is read back."""
    layers = [branch(layer, "feed_forward") for layer in spec.last.layers]
    mixture = next(layer for layer in layers if layer.get("name") == "mixture")
    dense = [number for number, layer in enumerate(layers) if layer.get("name") != "mixture"]
    hidden, act = mixture["expert"].get("hidden", 1), mixture["expert"].get("activation", "silu")
    config = llama.to_config(kind.dense, spec)
    config |= {
        "hidden_act": ACTIVATION_NAMES.get(act, act),
        "intermediate_size": layers[dense[0]].get("hidden", 1) if dense else hidden,
        "moe_intermediate_size": hidden,
        "num_local_experts": mixture["experts"],
        "num_experts_per_tok": mixture["top_k"],
        "norm_topk_prob": mixture["normalise"],
        "mlp_only_layers": dense,
        "decoder_sparse_step": 1,
        "use_sliding_window": config["sliding_window"] is not None,
    }
    others = Qwen3MoeConfig.model_fields.keys() ^ MixtralConfig.model_fields.keys()
    return {field: value for field, value in config.items() if field in kind.config.model_fields or field not in others}


def writes(kind: Mixture, spec: ModelSpec) -> bool:
    """For Llama-like decoders with a mixture in some layer."""
    stack = spec.last
    mixed = any(branch(layer, "feed_forward").get("name") == "mixture" for layer in stack.layers)
    pre = spec.assembly == "decoder_only" and stack.vision is None and stack.layers[0].placement == "pre"
    return mixed and pre and stack.qk_normed is kind.dense.qk_norm


MIXTRAL = llama.Kind("mixtral", "Mixtral", MixtralConfig, windows="all", attention_bias=False)
QWEN3_MOE = llama.Kind("qwen3_moe", "Qwen3Moe", Qwen3MoeConfig, windows="all", qk_norm=True)
KINDS = (Mixture(MIXTRAL, MixtralConfig, names.MIXTRAL), Mixture(QWEN3_MOE, Qwen3MoeConfig, names.QWEN3))
FAMILIES = tuple(
    Family(kind.dense.model_type, kind.table, partial(to_document, kind), partial(to_config, kind), partial(writes, kind))
    for kind in KINDS
)
