"""Initialising a model with another vocabulary than its sources': chosen tokens, or those of another tokenizer."""
