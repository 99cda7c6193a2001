"""Gemma 2 and Gemma 3 in transformers' format."""
