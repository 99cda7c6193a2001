"""config.json of Llama, Mistral, Qwen2 and Qwen3, with transformers' defaults."""

from pairform.assemblies.families.config import AnyStackConfig, EndTokens, HeadConfig, Token
from pairform.registry import Depth, PositiveFloat, PositiveInt


class LlamaConfig(HeadConfig, AnyStackConfig):
    """transformers' defaults for Llama. Where `num_key_value_heads` or `head_dim` is absent, `num_attention_heads` gives it."""

    vocab_size: PositiveInt = 32_000
    hidden_size: PositiveInt = 4096
    intermediate_size: PositiveInt = 11_008
    num_hidden_layers: Depth = 32
    num_attention_heads: PositiveInt = 32
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    max_position_embeddings: PositiveInt = 2048
    pad_token_id: Token = None
    bos_token_id: Token = 1
    eos_token_id: EndTokens = 2
    tie_word_embeddings: bool = False
    mlp_bias: bool = False
    partial_rotary_factor: PositiveFloat | None = None


class MistralConfig(LlamaConfig):
    intermediate_size: PositiveInt = 14_336
    num_key_value_heads: PositiveInt | None = 8
    max_position_embeddings: PositiveInt = 131_072
    sliding_window: PositiveInt | None = 4096


class Qwen2Config(LlamaConfig):
    vocab_size: PositiveInt = 151_936
    intermediate_size: PositiveInt = 22_016
    num_key_value_heads: PositiveInt | None = 32
    max_position_embeddings: PositiveInt = 32_768
    bos_token_id: Token = None
    eos_token_id: EndTokens = None
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None


class Qwen3Config(Qwen2Config):
    head_dim: PositiveInt | None = 128
