"""config.json of ModernBERT and of its decoder, with transformers' defaults."""

from typing import Literal

from pydantic import Field

from pairform.assemblies.families.config import EndTokens, HeadConfig, RopeConfig, Token
from pairform.assemblies.families.gemma.gemma3_stack import RopeByType
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability


class ModernBertConfig(HeadConfig):
    vocab_size: PositiveInt = 50_368
    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 1152
    num_hidden_layers: Depth = 22
    num_attention_heads: PositiveInt = 12
    head_dim: PositiveInt | None = None
    hidden_activation: str = "gelu"
    max_position_embeddings: PositiveInt = 8192
    initializer_range: PositiveFloat = 0.02
    norm_eps: PositiveFloat = 1e-5
    norm_bias: bool = False
    pad_token_id: Token = 50_283
    eos_token_id: EndTokens = 50_282
    bos_token_id: Token = 50_281
    decoder_start_token_id: Token = None
    attention_bias: bool = False
    attention_dropout: Probability = 0.0
    layer_types: list[str] | None = None
    global_attn_every_n_layers: PositiveInt = 3
    rope_parameters: RopeByType | None = None
    rope_scaling: RopeConfig | None = None
    global_rope_theta: PositiveFloat | None = None
    local_rope_theta: PositiveFloat | None = None
    local_attention: int | None = Field(default=128, ge=0)
    embedding_dropout: Probability = 0.0
    mlp_bias: bool = False
    mlp_dropout: Probability = 0.0
    decoder_bias: bool = True
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_dropout: Probability | None = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    is_causal: bool | None = None
