"""Text embeddings as folders of sentence-transformers."""

from pairform.interop.sentence_transformers.writing import export as export

__all__ = ["export"]
