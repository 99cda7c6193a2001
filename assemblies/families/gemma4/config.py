"""The fields of Gemma 4's configurations, with transformers' defaults."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pairform.assemblies.families.config import EndTokens, HeadConfig, Token
from pairform.assemblies.families.gemma.gemma3_stack import RopeByType
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability

Count = Annotated[int, Field(ge=0)]


class Gemma4Config(HeadConfig):
    """The language model."""

    vocab_size: PositiveInt = 262_144
    hidden_size: PositiveInt = 2304
    intermediate_size: PositiveInt = 9216
    num_hidden_layers: Depth = 30
    num_attention_heads: PositiveInt = 8
    num_key_value_heads: PositiveInt = 4
    head_dim: PositiveInt = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: PositiveInt = 131_072
    initializer_range: PositiveFloat = 0.02
    rms_norm_eps: PositiveFloat = 1e-6
    pad_token_id: Token = 0
    eos_token_id: EndTokens = 1
    bos_token_id: Token = 2
    rope_parameters: RopeByType | None = None
    attention_bias: bool = False
    attention_dropout: Probability = 0.0
    sliding_window: Count = 512
    layer_types: list[str] | None = None
    final_logit_softcapping: PositiveFloat | None = None
    use_bidirectional_attention: Literal["all", "vision"] | None = None  # type: ignore[assignment]
    is_causal: bool | None = None
    vocab_size_per_layer_input: PositiveInt = 262_144
    hidden_size_per_layer_input: Count | None = 256
    attention_k_eq_v: bool = False
    num_kv_shared_layers: Count = 0
    enable_moe_block: bool = False
    use_double_wide_mlp: bool = False
    num_experts: PositiveInt | None = None
    top_k_experts: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    global_head_dim: PositiveInt = 512
    num_global_key_value_heads: PositiveInt | None = None
    per_layer_config: dict[str, dict[str, Any]] | None = None


class Gemma4UnifiedConfig(Gemma4Config):
    """The language model of the 12B: no per-layer inputs and no experts."""

    max_position_embeddings: PositiveInt = 262_144
    sliding_window: Count = 1024
    use_bidirectional_attention: Literal["all", "vision"] | None = "vision"
    hidden_size_per_layer_input: None = None
    enable_moe_block: Literal[False] = False
