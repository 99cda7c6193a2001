"""Output heads, `[batch, length, width]` to logits or embeddings, and their losses."""
