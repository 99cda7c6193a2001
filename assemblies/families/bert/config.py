"""config.json of BERT, RoBERTa and XLM-RoBERTa, with transformers' defaults."""

from typing import Any

from pairform.assemblies.families.config import Config, EndTokens, Token
from pairform.registry import Depth, PositiveFloat, PositiveInt, Probability


class BertConfig(Config):
    """add_pooling_layer: ours, not transformers': false for a base model without a pooler."""

    architectures: list[str] | None = None
    vocab_size: PositiveInt = 30_522
    hidden_size: PositiveInt = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    max_position_embeddings: PositiveInt = 512
    type_vocab_size: PositiveInt = 2
    initializer_range: PositiveFloat = 0.02
    layer_norm_eps: PositiveFloat = 1e-12
    pad_token_id: Token = 0
    bos_token_id: Token = None
    eos_token_id: EndTokens = None
    decoder_start_token_id: Token = None
    classifier_dropout: Probability | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    id2label: dict[str, Any] | None = None
    num_labels: PositiveInt = 2
    problem_type: str | None = None
    position_embedding_type: str | None = None
    is_causal: bool | None = None
    add_pooling_layer: bool = True


class RobertaConfig(BertConfig):
    vocab_size: PositiveInt = 50_265
    pad_token_id: Token = 1
    bos_token_id: Token = 0
    eos_token_id: EndTokens = 2


class XLMRobertaConfig(RobertaConfig):
    vocab_size: PositiveInt = 30_522
