"""Training data: files, tokens, objectives, batches."""
