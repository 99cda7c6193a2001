"""EmbeddingGemma 2 in transformers' format."""

from pairform.assemblies.families.embedding_gemma2.embedding_gemma2 import FAMILIES as FAMILIES
