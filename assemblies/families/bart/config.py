"""config.json of BART and its relatives, with transformers' defaults."""

from collections.abc import Mapping
from typing import ClassVar

from pairform.assemblies.families.config import Config, EndTokens, Token
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability


class BartConfig(Config):
    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    architectures: list[str] | None = None
    vocab_size: PositiveInt = 50_265
    max_position_embeddings: PositiveInt = 1024
    d_model: PositiveInt = 1024
    encoder_layers: Depth = 12
    encoder_ffn_dim: PositiveInt = 4096
    encoder_attention_heads: PositiveInt = 16
    encoder_layerdrop: Probability = 0.0
    decoder_layers: Depth = 12
    decoder_ffn_dim: PositiveInt = 4096
    decoder_attention_heads: PositiveInt = 16
    decoder_layerdrop: Probability = 0.0
    activation_function: str = "gelu"
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.0
    activation_dropout: Probability = 0.0
    init_std: PositiveFloat = 0.02
    scale_embedding: bool = False
    pad_token_id: Token = 1
    bos_token_id: Token = 0
    eos_token_id: EndTokens = 2
    decoder_start_token_id: Token = 2
    forced_bos_token_id: Token = None
    forced_eos_token_id: EndTokens = 2
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = True


class MBartConfig(BartConfig):
    decoder_start_token_id: Token = None


class MarianConfig(BartConfig):
    vocab_size: PositiveInt = 58_101
    decoder_vocab_size: PositiveInt | None = None
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: Token = 58_100
    bos_token_id: Token = None
    eos_token_id: EndTokens = 0
    decoder_start_token_id: Token = 58_100
    forced_eos_token_id: EndTokens = 0


class PegasusConfig(BartConfig):
    pad_token_id: Token = 0
    bos_token_id: Token = None
    eos_token_id: EndTokens = 1
    decoder_start_token_id: Token = 0
    forced_eos_token_id: EndTokens = 1


class M2M100Config(BartConfig):
    vocab_size: PositiveInt = 128_112
    encoder_layerdrop: Probability = 0.05
    decoder_layerdrop: Probability = 0.05
    activation_function: str = "relu"
    attention_dropout: Probability = 0.1
    scale_embedding: bool = True
    forced_eos_token_id: EndTokens = None
