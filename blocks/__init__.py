"""The blocks that come with pairform. Each line registers one; its class is imported when it is first used."""

from pairform.registry import KINDS

for kind, name, block in (
    ("norm", "rmsnorm", "norms:RMSNorm"),
    ("norm", "layernorm", "norms:LayerNorm"),
    ("norm", "none", "norms:NoNorm"),
    ("position", "rope", "positions:RotaryPosition"),
    ("position", "none", "positions:NoPosition"),
    ("attention", "self_attention", "attention.self_attention:SelfAttention"),
    ("attention", "cross_attention", "attention.cross_attention:CrossAttention"),
    ("feed_forward", "gated", "feedforward:GatedFeedForward"),
    ("feed_forward", "mlp", "feedforward:FeedForward"),
    ("embedding", "token", "embeddings:TokenEmbedding"),
    ("head", "lm", "heads:LMHead"),
    ("head", "sequence_classification", "heads:SequenceClassificationHead"),
    ("head", "token_classification", "heads:TokenClassificationHead"),
    ("head", "none", "heads:NoHead"),
):
    KINDS[kind].add(name, f"pairform.blocks.{block}")
