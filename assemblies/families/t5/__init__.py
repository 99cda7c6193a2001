"""T5, T5 v1.1 and mT5 in transformers' format."""
