"""Corpora: documents tokenised once into a folder of shards, from which training reads."""
