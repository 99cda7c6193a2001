"""The blocks that come with pairform, registered by name; each class is imported when it is first used.

The package is also the public function `pairform.blocks(kind=None)`.
"""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, overload

from pairform.registry import KINDS, Registry, registry_of

for kind, name, block in (
    ("norm", "rmsnorm", "norms:RMSNorm"),
    ("norm", "layernorm", "norms:LayerNorm"),
    ("norm", "scalenorm", "norms:ScaleNorm"),
    ("norm", "dynamic_tanh", "norms:DynamicTanh"),
    ("norm", "none", "norms:NoNorm"),
    ("residual", "add", "residuals:Add"),
    ("residual", "scaled", "residuals:Scaled"),
    ("residual", "gated", "residuals:Gated"),
    ("residual", "deepnorm", "residuals:DeepNorm"),
    ("position", "rope", "positions.rotary:RotaryPosition"),
    ("position", "t5_relative", "positions.score_biases:T5RelativePosition"),
    ("position", "alibi", "positions.score_biases:ALiBi"),
    ("position", "none", "positions.base:NoPosition"),
    ("absolute_position", "sinusoidal", "positions.absolute:SinusoidalPosition"),
    ("absolute_position", "learned", "positions.absolute:LearnedPosition"),
    ("attention", "self_attention", "attention.self_attention:SelfAttention"),
    ("attention", "cross_attention", "attention.cross_attention:CrossAttention"),
    ("attention", "merged_attention", "attention.merged_attention:MergedAttention"),
    ("attention", "differential_attention", "attention.differential_attention:DifferentialAttention"),
    ("attention", "latent_attention", "attention.latent_attention:LatentAttention"),
    ("attention", "retention", "attention.retention:Retention"),
    ("feed_forward", "gated", "feedforward:GatedFeedForward"),
    ("feed_forward", "mlp", "feedforward:FeedForward"),
    ("feed_forward", "mixture", "mixture:MixtureOfExperts"),
    ("embedding", "token", "embeddings:TokenEmbedding"),
    ("embedding", "factorised", "embeddings:FactorisedEmbedding"),
    ("embedding", "patches", "vision:PatchEmbedding"),
    ("projector", "average_pool", "vision:AveragePoolProjector"),
    ("bridge", "none", "bridges:NoBridge"),
    ("bridge", "linear", "bridges:LinearBridge"),
    ("bridge", "separate_keys", "bridges:SeparateKeysBridge"),
    ("head", "lm", "heads.token_heads:LMHead"),
    ("head", "masked_lm", "heads.masked_lm:MaskedLMHead"),
    ("head", "sequence_classification", "heads.classification:SequenceClassificationHead"),
    ("head", "token_classification", "heads.classification:TokenClassificationHead"),
    ("head", "span", "heads.classification:SpanHead"),
    ("head", "sentence_embedding", "heads.pooled_heads:SentenceEmbeddingHead"),
    ("head", "contrastive", "heads.pooled_heads:ContrastiveHead"),
    ("head", "none", "heads.token_heads:NoHead"),
):
    KINDS[kind].add(name, f"pairform.blocks.{block}")


@overload
def blocks(kind: None = None) -> Mapping[str, Registry]: ...
@overload
def blocks(kind: str) -> Registry: ...
def blocks(kind: str | None = None) -> Mapping[str, Registry] | Registry:
    """The registries by kind, or the registry of one kind: a mapping from names to block classes."""
    return KINDS if kind is None else registry_of(kind)


class _CallablePackage(ModuleType):
    """The attribute `pairform.blocks` is a public function and this package. Python sets it to the package on import of any
    module inside, so that only a callable package can be both."""

    def __call__(self, kind: str | None = None) -> Any:
        return blocks(kind)


sys.modules[__name__].__class__ = _CallablePackage
