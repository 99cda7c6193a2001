"""Output heads, from `[batch, length, width]` to logits or embeddings, and their losses."""
