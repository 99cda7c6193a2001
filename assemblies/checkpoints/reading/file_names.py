"""Names of the files of a model's folder beside weights and configurations."""

TOKENIZER = "tokenizer.json"
COMPANIONS = (
    TOKENIZER,
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Names of the files that are copied from a source. generation_config.json is copied too if the new model generates."""
ENCODER_TOKENIZER = "encoder_tokenizer"
"""The folder of the encoder's tokenizer if it differs from the decoder's."""
ENCODER_COMPANIONS = tuple(f"{ENCODER_TOKENIZER}/{name}" for name in COMPANIONS)
OTHERS = (
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "spiece.model",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files of tokenizers and processors that transformers writes and pairform does not."""
SENTENCE_SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json")
"""Settings of sentence-transformers."""
PROVENANCE = "provenance.json"
CARD = "README.md"
"""The model card."""
NOTICES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")
"""Files with a licence's terms or a notice that it asks for."""
