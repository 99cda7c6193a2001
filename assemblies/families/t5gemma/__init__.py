"""T5Gemma and T5Gemma 2 in transformers' format."""
